// One IO thread with its event loop. A connection lives on one loop for all its life, so nothing of it is locked.
#ifndef QWEN_RUNTIME_SERVER_HTTP_IO_LOOP_H_
#define QWEN_RUNTIME_SERVER_HTTP_IO_LOOP_H_

#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>

namespace qwen::server {

class Connection;

class IoLoop {
 public:
  IoLoop() : work_(boost::asio::make_work_guard(context_)) {
    boost::asio::steady_timer(context_).cancel();  // the loop's own descriptors are opened now, not by the first client
  }

  void Start() {
    thread_ = std::thread([this] { context_.run(); });
  }
  /// Runs `function` on the loop's thread, after what was posted before. Any thread; dropped once the loop has ended.
  template <class Function>
  void Post(Function&& function) {
    std::lock_guard lock(mutex_);
    if (!ended_) boost::asio::post(context_, std::forward<Function>(function));
  }
  /// Calls `last` on the loop's thread, ends when nothing is pending any more, joins.
  template <class Function>
  void Stop(Function last) {
    Post([this, last] {
      last();
      {
        std::lock_guard lock(mutex_);
        ended_ = true;
      }
      work_.reset();
    });
    if (thread_.joinable()) thread_.join();
  }

  boost::asio::io_context& context() { return context_; }

  // On the loop's thread only.
  std::unordered_set<std::shared_ptr<Connection>> connections;
  std::array<char, size_t{64} << 10> received;  // every connection reads into this: an idle one owns no buffer
  std::string pulled;                           // and every stream gives into this

 private:
  boost::asio::io_context context_{1};  // one thread runs it
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::mutex mutex_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_IO_LOOP_H_
