// Prometheus metrics: one registry a process, served at /metrics by its own listener.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quire::runtime {

// Register every family and its known labels at start, so that a scrape shows zeros before the first event.
// Thread-safe.
std::shared_ptr<prometheus::Registry> NewRegistry();

prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help, const prometheus::Labels& labels = {});
prometheus::Gauge& AddGauge(prometheus::Registry& registry, const std::string& name, const std::string& help,
                            const prometheus::Labels& labels = {});
prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help,
                                    const prometheus::Histogram::BucketBoundaries& buckets,
                                    const prometheus::Labels& labels = {});

// The text exposition of all metrics, for a listener of one's own (the gateway's /metrics).
std::string Exposition(const prometheus::Registry& registry);

// Serves GET /metrics until destroyed.
class MetricsListener {
 public:
  // address: host:port; port 0 picks one.
  static absl::StatusOr<std::unique_ptr<MetricsListener>> Start(
      const std::string& address, std::shared_ptr<prometheus::Registry> registry);
  ~MetricsListener();
  int port() const { return port_; }

 private:
  MetricsListener() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
  int port_ = 0;
};

}  // namespace quire::runtime
