// A thread owns whole rows. From a tile16 table a row is one lane of a tile: a strided gather, cheaper than a second
// copy of the table.

inline void EmbedRows(const void* spec, const Launch& l) {
  const EmbedSpec& s = *static_cast<const EmbedSpec*>(spec);
  const unsigned char* table = static_cast<const unsigned char*>(l.args[kEmbedTable]);
  void* y = l.args[kEmbedY];
  const long long tile_bytes = TileBytes(s.w_type, s.hidden);
  const Range share = ShareOf(l, l.batch->num_tokens);
  for (long long t = share.begin; t < share.end; ++t) {
    const int id = l.batch->token_ids[t];
    if (!s.tiled) {
      ForRuns(s.hidden, [&](int i, int run) {
        StoreTyped(s.y_type, y, t * s.hidden + i,
                   LoadTyped(s.w_type, table, static_cast<long long>(id) * s.hidden + i, run), run);
      });
      continue;
    }
    const unsigned char* tile = table + tile_bytes * (id / 16);
    const int lane = id % 16;
    for (int c = 0; c < s.hidden; ++c) {
      const long long at = s.w_type == DType::kBF16 ? 32LL * (c / 2) + 2 * lane + c % 2 : 16LL * c + lane;
      StoreOne(s.y_type, y, t * s.hidden + c, LoadOne(s.w_type, tile, at));
    }
  }
}
