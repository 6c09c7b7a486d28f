// What a connection and the Responder it handed out share, and the Responder.
#ifndef QWEN_RUNTIME_SERVER_HTTP_EXCHANGE_H_
#define QWEN_RUNTIME_SERVER_HTTP_EXCHANGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "runtime/server/http/connection.h"
#include "runtime/server/http/http.h"
#include "runtime/server/http/io_loop.h"

namespace qwen::server {

/// One request and its answer. Any thread.
class Exchange {
 public:
  /// The answer was sent whole: nobody hears of a client that leaves now.
  void Finish();
  void SignalGone(Gone why);
  void OnGone(std::function<void(Gone)> hear);
  bool gone();

  std::atomic<bool> answered = false;
  std::atomic<bool> wake_pending = false;

 private:
  std::mutex mutex_;
  bool finished_ = false;
  std::optional<Gone> gone_;
  std::function<void(Gone)> hear_;
};

/// Posts what the handler says to the connection's loop. The connection may be gone by then, or at its next request.
class PostingResponder : public Responder {
 public:
  PostingResponder(std::shared_ptr<Exchange> exchange, std::shared_ptr<IoLoop> loop,
                   std::weak_ptr<Connection> connection, uint64_t serial);
  ~PostingResponder() override;

  void Reply(HttpResponse response) override;
  void Stream(HttpResponse head, std::shared_ptr<BodySource> source, std::string_view ping) override;
  void Wake() override;
  void OnGone(std::function<void(Gone)> gone) override { exchange_->OnGone(std::move(gone)); }

 private:
  const std::shared_ptr<Exchange> exchange_;
  const std::shared_ptr<IoLoop> loop_;
  const std::weak_ptr<Connection> connection_;
  const uint64_t serial_;
};

}  // namespace qwen::server

#endif  // QWEN_RUNTIME_SERVER_HTTP_EXCHANGE_H_
