//! Logging: to stderr, never to stdout. And traces, where a collector is named.

use crate::config::LogFormat;
use crate::output::{Failure, Outcome};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use skytale_proto::Code;
use std::io::{self, IsTerminal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Default log filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// A command that a person waits for or watches: warnings of the project's own parts.
    Client,
    /// A server: what happens, and warnings of the libraries below.
    Server,
}

impl Default {
    const fn filter(self) -> &'static str {
        match self {
            Self::Client => "warn,iroh=off,netwatch=off,noq=off,async_nats=off",
            Self::Server => "warn,skytale=info,skytale_api=info,skytale_relay_node=info,skytale_log_store=info",
        }
    }
}

/// Levels, and the word for none of them.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A word alone that is nearly a level: it would be taken for the name of a target, which nobody has.
fn meant_for_a_level(directive: &str) -> Option<(&str, &'static str)> {
    let word = directive.trim();
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    if is_level || word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let likeness = |level: &&str| strsim::jaro_winkler(&word.to_ascii_lowercase(), level);
    let nearest = LEVELS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) > 0.82).then_some((word, nearest))
}

/// Traces that are on their way to a collector.
#[derive(Debug, Default)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends the rest, while the runtime still runs.
    pub(crate) fn stop(self) {
        if let Some(provider) = self.0 {
            // A collector that is away does not keep a server from ending well.
            let _ = provider.shutdown();
        }
    }
}

/// Sends traces to a collector. Within the runtime, which carries the connection; a collector that is away stops nobody.
fn exporter(url: &str) -> Outcome<SdkTracerProvider> {
    let refused = |why: String| {
        Failure::new(
            Code::Config,
            format!("configuration key `otlp_url`: `{url}` cannot be used"),
        )
        .since(why)
        .help("Name a collector that takes OTLP over gRPC, as in http://127.0.0.1:4317.")
    };
    if !url.starts_with("http://") {
        return Err(refused("it must begin with http://".to_owned()));
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(url).build();
    let exporter = exporter.map_err(|error| refused(error.to_string()))?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("skytale");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
    Ok(provider.with_resource(resource.build()).build())
}

/// Reads a log filter.
pub(crate) fn filter(directives: &str) -> Outcome<EnvFilter> {
    let no_filter = || Failure::new(Code::Config, format!("`{directives}` is no log filter"));
    let help = "A level (error, warn, info, debug, trace), or `target=level` pairs separated by commas.";
    if let Some((word, level)) = directives.split(',').find_map(meant_for_a_level) {
        let meant = format!("`{word}` is no level: did you mean `{level}`?");
        return Err(no_filter().since(meant).help(help));
    }
    EnvFilter::try_new(directives).map_err(|error| no_filter().because(&error).help(help))
}

/// Starts logging, once, and traces if a collector is named.
pub(crate) fn start(
    asked: Option<&str>,
    default: Default,
    format: LogFormat,
    otlp_url: Option<&str>,
) -> Outcome<Traces> {
    let filter = filter(asked.unwrap_or(default.filter()))?;
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(!no_color && io::stderr().is_terminal()).boxed(),
    };
    let provider = otlp_url.map(exporter).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let tracer = provider.tracer("skytale");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
    });
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(traces)
        .try_init();
    started.map_err(|error| Failure::new(Code::Environment, "cannot start logging").since(error.to_string()))?;
    Ok(Traces(provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_in_a_level_is_seen() {
        let meant = |word| meant_for_a_level(word).map(|(_, level)| level);
        for (word, level) in [
            ("debg", "debug"),
            (" Inof", "info"),
            ("tracee", "trace"),
            ("eror", "error"),
        ] {
            assert_eq!(meant(word), Some(level), "{word}");
        }
        for word in ["debug", "WARN", "off", "iroh=off", "skytale_sdk", "hyper", ""] {
            assert_eq!(meant(word), None, "{word}");
        }
    }
}
