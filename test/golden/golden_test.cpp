#include "Player.h"
#include <cstdio>
#include "gtest/gtest.h"
using namespace qwen;
using namespace qwen::golden;
TEST(Probe, All) {
  for (auto name : goldenNames()) {
    auto golden = Golden::open(name);
    ASSERT_TRUE(golden.ok()) << golden.status().message();
    auto model = Model::open(*golden);
    ASSERT_TRUE(model.ok()) << name << model.status().message();
    for (int real = 0; real < 2; ++real) {
    std::vector<Miss> all;
    for (int c = 0; c < (int)golden->cases.size(); ++c) {
      Feed feed{c, {(int64_t)golden->cases[c].size()}};
      auto played = real ? play<double>(**model, *golden, {feed}) : play<float>(**model, *golden, {feed});
      ASSERT_TRUE(played.ok()) << name << ": " << played.status().message();
      for (auto &m : misses(*golden, feed, played->traces[0])) all.push_back(m);
    }
    std::sort(all.begin(), all.end(), [](auto &a, auto &b) { return a.error > b.error; });
    printf("%-14s %s %zu keys:", name.c_str(), real ? "f64" : "f32", all.size());
    for (int i = 0; i < 5; ++i) printf("  %s row %ld %.1e", all[i].key.c_str(), all[i].row, all[i].error);
    printf("\n");
    }
  }
}
