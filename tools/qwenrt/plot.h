// A line chart as an SVG file: what `qwenrt bench --plot` draws.
#ifndef QWEN_TOOLS_QWENRT_PLOT_H_
#define QWEN_TOOLS_QWENRT_PLOT_H_

#include <string>
#include <vector>

namespace qwen::qwenrt {

struct PlotPoint {
  double x = 0, y = 0, limit = 0;  // limit: what the machine's ceilings would allow
};
struct Panel {
  std::string title, x_label, y_label;
  std::vector<PlotPoint> points;  // x ascending, above 0
};

/// Panels beside each other; x in powers of two, y from 0. Text is escaped.
std::string DrawPlot(const std::string& title, const std::vector<Panel>& panels);

}  // namespace qwen::qwenrt

#endif  // QWEN_TOOLS_QWENRT_PLOT_H_
