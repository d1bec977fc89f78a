//! Progress on a terminal: a bar with rate and time, on standard error. Nothing is drawn where nobody watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str = "{msg:22!} [{bar:28}] {binary_bytes:>11}/{binary_total_bytes:<11} {binary_bytes_per_sec:>13} {eta:>4}";
const ITEMS: &str = "{msg:22!} [{bar:28}] {human_pos:>11}/{human_len:<11} {per_sec:>13} {eta:>4}";
const OPEN_BYTES: &str =
    "{msg:22!} {spinner} {binary_bytes:>11} {binary_bytes_per_sec:>13} {elapsed:>4}";
const SPINNER: &str = "{msg} {spinner} {elapsed}";

/// A bar that is filled as work is done; dropping it takes it off the screen.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Counts bytes up to `total`; 0 means that nobody knows.
    pub fn bytes(what: &str, total: u64) -> Self {
        Self::new(what, total, if total == 0 { OPEN_BYTES } else { BYTES })
    }

    /// Counts things up to `total`.
    pub fn items(what: &str, total: u64) -> Self {
        Self::new(what, total, ITEMS)
    }

    /// Only shows that something goes on.
    pub fn spinner(what: &str) -> Self {
        Self::new(what, 0, SPINNER)
    }

    fn new(what: &str, total: u64, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(template).expect("a constant template");
        bar.set_style(style.progress_chars("=> ").tick_chars("-\\|/ "));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(150));
        Self { bar }
    }

    /// So much more was done.
    pub fn add(&self, count: u64) {
        self.bar.inc(count);
    }

    /// So much is done in all.
    pub fn set(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    /// What is being done now.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Writes a line above the bar.
    pub fn note(&self, line: &str) {
        if self.bar.is_hidden() {
            crate::output::note(line);
        } else {
            self.bar.println(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
