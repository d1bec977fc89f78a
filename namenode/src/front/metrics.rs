//! Counters of this process, and their text for Prometheus.
//!
//! Each is one relaxed atomic: they are only ever added to and read. Gauges are read where they live when asked for.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::access::{METHODS, Method};

/// Calls of one method.
#[derive(Debug, Default)]
struct Calls {
    calls: AtomicU64,
    errors: AtomicU64,
    micros: AtomicU64,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    methods: Vec<Calls>,
    effects: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            methods: METHODS.iter().map(|_| Calls::default()).collect(),
            effects: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// A call of a method is over, after so many microseconds.
    pub fn called(&self, method: Method, failed: bool, micros: u64) {
        let calls = &self.methods[method as usize];
        calls.calls.fetch_add(1, Ordering::Relaxed);
        calls.micros.fetch_add(micros, Ordering::Relaxed);
        if failed {
            calls.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many effects of journaled operations were taken.
    pub fn took_effects(&self, count: usize) {
        self.effects.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The counters as Prometheus text; methods that were never called are left out.
    pub fn render(&self, out: &mut String) {
        type Read = fn(&Calls) -> &AtomicU64;
        let families: [(&str, &str, Read); 3] = [
            ("granary_namenode_calls_total", "Calls by method.", |c| &c.calls),
            ("granary_namenode_call_errors_total", "Calls that failed by method.", |c| &c.errors),
            ("granary_namenode_call_micros_total", "Time in calls by method.", |c| &c.micros),
        ];
        for (name, help, read) in families {
            header(out, name, help, "counter");
            for (&method, calls) in METHODS.iter().zip(&self.methods) {
                if calls.calls.load(Ordering::Relaxed) > 0 {
                    let value = read(calls).load(Ordering::Relaxed);
                    line(out, format_args!("{name}{{method=\"{}\"}} {value}", method.name()));
                }
            }
        }
        let effects = self.effects.load(Ordering::Relaxed);
        sample(out, "granary_namenode_effects_total", "Effects of operations.", "counter", effects);
    }
}

/// One sample with its header.
pub fn sample(out: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    header(out, name, help, kind);
    line(out, format_args!("{name} {value}"));
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method() {
        let metrics = Metrics::default();
        metrics.called(Method::Mkdirs, false, 10);
        metrics.called(Method::Mkdirs, true, 5);
        let mut text = String::new();
        metrics.render(&mut text);
        for expected in [
            "granary_namenode_calls_total{method=\"Namespace.Mkdirs\"} 2\n",
            "granary_namenode_call_errors_total{method=\"Namespace.Mkdirs\"} 1\n",
            "granary_namenode_call_micros_total{method=\"Namespace.Mkdirs\"} 15\n",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert!(!text.contains("Namespace.Delete"));
    }
}
