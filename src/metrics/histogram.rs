//! A histogram of atomics: an observation takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// What one unit of an observed whole number is worth in the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// As it is.
    Whole,
    /// Nanoseconds, shown as seconds.
    Nanoseconds,
}

impl Scale {
    fn per_unit(self) -> f64 {
        match self {
            Scale::Whole => 1.0,
            Scale::Nanoseconds => 1e9,
        }
    }
}

/// Counts observations by size. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: &'static [f64],
    scale: Scale,
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing observed yet. `bounds` ascend.
    pub(super) fn new(bounds: &'static [f64], scale: Scale) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, scale, counts, sum: AtomicU64::new(0) }))
    }

    pub(super) fn observe(&self, amount: u64) {
        let Inner { bounds, scale, counts, sum } = &*self.0;
        let shown = amount as f64 / scale.per_unit();
        let at = bounds.partition_point(|bound| *bound < shown);
        if let Some(count) = counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        sum.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn observe_span(&self, span: Duration) {
        self.observe(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Inner { bounds, scale, counts, sum } = &*self.0;
        let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let sum = sum.load(Ordering::Relaxed) as f64 / scale.per_unit();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Makes histograms of seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfSeconds(&'static [f64]);

/// Makes histograms of seconds with these buckets.
pub(super) fn of_seconds(buckets: &'static [f64]) -> OfSeconds {
    OfSeconds(buckets)
}

impl MetricConstructor<Histogram> for OfSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0, Scale::Nanoseconds)
    }
}
