use super::*;
impl Results {
    /// tmp
    pub fn new(mut report: Report, measured: Measured) -> Self {
        for (measure, all) in &measured.latencies {
            let mut sum = histogram();
            for one in all {
                let _ = sum.add(one);
            }
            report.latencies_us.insert(
                measure.name().into(),
                Latency {
                    count: sum.len(),
                    min: sum.min(),
                    mean: sum.mean(),
                    p50: sum.value_at_quantile(0.5),
                    p90: sum.value_at_quantile(0.9),
                    p99: sum.value_at_quantile(0.99),
                    p999: sum.value_at_quantile(0.999),
                    max: sum.max(),
                },
            );
        }
        Self { report, measured }
    }
    /// tmp
    pub fn write(&self, dir: &std::path::Path) -> std::io::Result<()> {
        std::fs::create_dir(dir)?;
        std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&self.report)?)
    }
}
