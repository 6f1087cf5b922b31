//! Figures of the store while it is measured, by the metrics that an operator would see.

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// The metrics of this process.
#[derive(Clone, Debug)]
pub struct Figures {
    handle: PrometheusHandle,
}

/// Batches that the store has written so far, and their contents.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batches {
    /// Number of batches.
    pub count: f64,
    /// Frames in them.
    pub frames: f64,
    /// Time that writing and syncing them took, in seconds.
    pub sync_s: f64,
}

impl Figures {
    /// Installs a recorder. Once a process.
    pub fn install() -> anyhow::Result<Self> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).context("a process has one recorder")?;
        Ok(Self { handle })
    }

    /// The sum of a metric over its labels; 0 where it was never set.
    pub fn value(&self, name: &str) -> f64 {
        let text = self.handle.render();
        let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = text.lines().filter(of_metric);
        values
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Batches that stores of this process have written.
    pub fn batches(&self) -> Batches {
        Batches {
            count: self.value("skytale_store_batch_frames_count"),
            frames: self.value("skytale_store_batch_frames_sum"),
            sync_s: self.value("skytale_store_sync_seconds_sum"),
        }
    }

    /// Waits until the store's index has everything that was appended.
    pub fn wait_for_index(&self) {
        while self.value("skytale_store_index_lag_bytes") > 0.0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Batches {
    /// Returns the difference from `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            count: self.count - before.count,
            frames: self.frames - before.frames,
            sync_s: self.sync_s - before.sync_s,
        }
    }
}
