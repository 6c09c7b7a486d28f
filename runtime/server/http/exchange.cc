#include "runtime/server/http/exchange.h"

#include <utility>

namespace qwen::server {

void Exchange::Finish() {
  std::function<void(Gone)> dropped;
  std::lock_guard lock(mutex_);
  finished_ = true;
  dropped.swap(hear_);
}

void Exchange::SignalGone(Gone why) {
  std::function<void(Gone)> hear;
  {
    std::lock_guard lock(mutex_);
    if (finished_ || gone_) return;
    gone_ = why;
    hear.swap(hear_);
  }
  if (hear) hear(why);
}

void Exchange::OnGone(std::function<void(Gone)> hear) {
  std::optional<Gone> gone;
  {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    gone = gone_;
    if (!gone) hear_.swap(hear);
  }
  if (gone) hear(*gone);
}

bool Exchange::gone() {
  std::lock_guard lock(mutex_);
  return gone_.has_value();
}

PostingResponder::PostingResponder(std::shared_ptr<Exchange> exchange, std::shared_ptr<IoLoop> loop,
                                   std::weak_ptr<Connection> connection, uint64_t serial)
    : exchange_(std::move(exchange)), loop_(std::move(loop)), connection_(std::move(connection)), serial_(serial) {}

PostingResponder::~PostingResponder() {
  if (exchange_->answered.exchange(true)) return;
  loop_->Post([connection = connection_, serial = serial_] {
    if (auto self = connection.lock()) self->OnDropped(serial);
  });
}

void PostingResponder::Reply(HttpResponse response) {
  if (exchange_->answered.exchange(true)) return;
  loop_->Post([connection = connection_, serial = serial_, response = std::move(response)]() mutable {
    if (auto self = connection.lock()) self->OnReply(serial, std::move(response));
  });
}

void PostingResponder::Stream(HttpResponse head, std::shared_ptr<BodySource> source, std::string_view ping) {
  if (exchange_->answered.exchange(true)) return;
  loop_->Post([connection = connection_, serial = serial_, head = std::move(head), source = std::move(source),
               ping = std::string(ping)]() mutable {
    if (auto self = connection.lock()) self->OnStream(serial, std::move(head), std::move(source), std::move(ping));
  });
}

void PostingResponder::Wake() {
  if (exchange_->wake_pending.exchange(true)) return;
  loop_->Post([connection = connection_, serial = serial_] {
    if (auto self = connection.lock()) self->OnWake(serial);
  });
}

}  // namespace qwen::server
