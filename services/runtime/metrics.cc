#include "services/runtime/metrics.h"

#include <prometheus/exposer.h>
#include <prometheus/text_serializer.h>

#include <exception>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quire::runtime {

std::shared_ptr<prometheus::Registry> NewRegistry() { return std::make_shared<prometheus::Registry>(); }

prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help, const prometheus::Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& AddGauge(prometheus::Registry& registry, const std::string& name, const std::string& help,
                            const prometheus::Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help,
                                    const prometheus::Histogram::BucketBoundaries& buckets,
                                    const prometheus::Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

std::string Exposition(const prometheus::Registry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

struct MetricsListener::Impl {
  Impl(const std::string& address, std::shared_ptr<prometheus::Registry> r)
      : registry(std::move(r)), exposer(address, /*num_threads=*/1) {
    exposer.RegisterCollectable(registry);
  }
  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Exposer exposer;
};

absl::StatusOr<std::unique_ptr<MetricsListener>> MetricsListener::Start(
    const std::string& address, std::shared_ptr<prometheus::Registry> registry) {
  auto listener = std::unique_ptr<MetricsListener>(new MetricsListener());
  try {
    listener->impl_ = std::make_unique<Impl>(address, std::move(registry));
    std::vector<int> ports = listener->impl_->exposer.GetListeningPorts();
    listener->port_ = ports.empty() ? 0 : ports.front();
  } catch (const std::exception& e) {  // civetweb reports a bind failure by throwing
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address, ": ", e.what()));
  }
  return listener;
}

MetricsListener::~MetricsListener() = default;

}  // namespace quire::runtime
