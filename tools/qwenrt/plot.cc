#include "tools/qwenrt/plot.h"

#include <algorithm>
#include <cmath>

#include "fmt/format.h"

namespace qwen::qwenrt {
namespace {

constexpr int kPanelWidth = 440, kHeight = 340, kLeft = 70, kRight = 20, kTop = 64, kBottom = 56, kGridLines = 4;

std::string Escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
  }
  return out;
}

std::string Text(double x, double y, const char* anchor, const std::string& text, const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     Escape(text));
}

/// The least of 1, 2, 2.5, 5 times a power of ten that is not below `value`.
double NiceAbove(double value) {
  if (!(value > 0)) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (double step : {1.0, 2.0, 2.5, 5.0, 10.0})
    if (step * power >= value) return step * power;
  return 10 * power;
}

std::string DrawPanel(const Panel& panel, double left) {
  const double x0 = left + kLeft, x1 = left + kPanelWidth - kRight, y0 = kHeight - kBottom, y1 = kTop;
  double top = 0, low = 1e300, high = 0;
  for (const PlotPoint& p : panel.points) {
    top = std::max({top, p.y, p.limit});
    low = std::min(low, p.x), high = std::max(high, p.x);
  }
  top = NiceAbove(top);
  auto x_of = [&](double x) {
    if (high <= low) return (x0 + x1) / 2;
    return x0 + (x1 - x0) * std::log2(x / low) / std::log2(high / low);
  };
  auto y_of = [&](double y) { return y0 + (y1 - y0) * y / top; };

  std::string svg = Text((x0 + x1) / 2, y1 - 14, "middle", panel.title, " font-weight=\"bold\"");
  for (int i = 0; i <= kGridLines; ++i) {
    const double value = top * i / kGridLines, y = y_of(value);
    svg +=
        fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", x0, y, x1, y);
    svg += Text(x0 - 8, y + 4, "end", fmt::format("{:g}", value));
  }
  auto line = [&](auto value_of, const char* style) {
    std::string points;
    for (const PlotPoint& p : panel.points) points += fmt::format("{:.1f},{:.1f} ", x_of(p.x), y_of(value_of(p)));
    return fmt::format("<polyline points=\"{}\" fill=\"none\" {}/>\n", points, style);
  };
  svg += line([](const PlotPoint& p) { return p.limit; }, "stroke=\"#999\" stroke-dasharray=\"5 4\"");
  svg += line([](const PlotPoint& p) { return p.y; }, "stroke=\"#1b6ac9\" stroke-width=\"2\"");
  for (const PlotPoint& p : panel.points) {
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"#1b6ac9\"/>\n", x_of(p.x), y_of(p.y));
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\" fill=\"#999\"/>\n", x_of(p.x), y_of(p.limit));
    svg += Text(x_of(p.x), y_of(p.y) - 9, "middle", fmt::format("{:.4g}", p.y));
    svg += Text(x_of(p.x), y0 + 18, "middle", fmt::format("{:g}", p.x));
  }
  svg += Text((x0 + x1) / 2, y0 + 40, "middle", panel.x_label);
  const double label_x = left + 16, label_y = (y0 + y1) / 2;
  return svg + Text(label_x, label_y, "middle", panel.y_label,
                    fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", label_x, label_y).c_str());
}

}  // namespace

std::string DrawPlot(const std::string& title, const std::vector<Panel>& panels) {
  const int width = kPanelWidth * static_cast<int>(panels.size());
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      width, kHeight);
  svg += Text(width / 2.0, 22, "middle", title, " font-size=\"14\"");
  for (size_t i = 0; i < panels.size(); ++i) svg += DrawPanel(panels[i], static_cast<double>(i) * kPanelWidth);
  return svg + "</svg>\n";
}

}  // namespace qwen::qwenrt
