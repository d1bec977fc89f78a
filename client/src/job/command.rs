//! Map and reduce by external commands: lines in, `key<TAB>value` lines out, as in Hadoop Streaming.
//!
//! A command is run by `sh -c`, once per split (map) or partition (reduce), in a process group of its own. It gets its
//! records on standard input: lines as they are, documents as they are, records of tables and groups as
//! `key<TAB>value` lines sorted by key. Of a line that it writes, the key is what stands before the first tab, and the
//! value is the rest. `GRANARY_INPUT_PATH` and `GRANARY_INPUT_OFFSET` tell a map command what it reads.
//!
//! A command that does not end with status 0 fails the job, and the error shows the end of its standard error. It may
//! end without reading all of its input. When the job is cancelled, the process group is killed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use proto::{Code, Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::input::{Kind, LINE_BYTES_MAX};
use super::progress::Cancel;
use super::record::Record;

/// Bytes of standard error that an error shows.
const STDERR_TAIL_BYTES: usize = 2_000;
const PIPE_BYTES: usize = 256 << 10;
/// How often a running command is looked at for a cancelled job.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Standard input of a command.
pub(crate) struct Input {
    out: io::BufWriter<std::process::ChildStdin>,
    /// The command stopped reading: not an error by itself.
    broken: bool,
}

impl Input {
    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        for part in parts {
            self.out.write_all(part).map_err(|e| self.failed(&e))?;
        }
        Ok(())
    }

    fn failed(&mut self, error: &io::Error) -> Error {
        self.broken |= error.kind() == io::ErrorKind::BrokenPipe;
        Error::io("write to the command", error)
    }

    /// A record of the input.
    pub fn record(&mut self, kind: Kind, record: &Record<'_>) -> Result<()> {
        match kind {
            Kind::Lines => self.write(&[record.value, b"\n"]),
            Kind::Documents => self.write(&[record.value]),
            Kind::Tables => self.pair(record.key, record.value),
        }
    }

    /// A line `key<TAB>value`.
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if memchr::memchr2(b'\t', b'\n', key).is_some() || memchr::memchr(b'\n', value).is_some() {
            let message = format!(
                "key {}: a tab or line end in it, or a line end in its value, cannot be told apart \
                 from those between records of a command",
                sstable::escape(key)
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        self.write(&[key, b"\t", value, b"\n"])
    }
}

/// Runs a command: `feed` writes its input on a thread of its own, `emit` takes what it writes. `None` if it ended well
/// without reading all of its input.
pub(crate) fn run<T: Send>(
    command: &str,
    variables: &[(&str, String)],
    cancel: &Cancel,
    feed: impl FnOnce(&mut Input) -> Result<T> + Send,
    emit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<Option<T>> {
    cancel.check()?;
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| Error::io(format!("start the command {command:?}"), &e))?;
    let group = Pid::from_child(&child);
    let stdin = child.stdin.take().expect("piped");
    let stderr = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            let mut input =
                Input { out: io::BufWriter::with_capacity(PIPE_BYTES, stdin), broken: false };
            let mut fed = feed(&mut input);
            if fed.is_ok()
                && let Err(e) = input.out.flush()
            {
                fed = Err(input.failed(&e));
            }
            (fed, input.broken)
        });
        let tail = scope.spawn(move || tail_of(stderr));
        let (done, watch) = mpsc::channel::<()>();
        scope.spawn(move || watch_cancel(&watch, cancel, group));
        let read = read_output(&mut child, emit);
        if read.is_err() {
            kill(group);
        }
        let status = child.wait().map_err(|e| Error::io("wait for the command", &e));
        drop(done);
        let (fed, broken) = feeder.join().expect("a feeder does not panic");
        let tail = tail.join().expect("it only reads");
        cancel.check()?;
        read.and_then(|()| ended(command, status?, &tail))?;
        match fed {
            Ok(fed) => Ok(Some(fed)),
            Err(_) if broken => Ok(None),
            Err(error) => Err(error),
        }
    })
}

fn read_output(child: &mut Child, mut emit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let stdout = child.stdout.take().expect("piped");
    let mut lines = BufReader::with_capacity(PIPE_BYTES, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        if read.map_err(|e| Error::io("read from the command", &e))? == 0 {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.len() > LINE_BYTES_MAX {
            let message = format!("the command wrote a line of over {LINE_BYTES_MAX} bytes");
            return Err(Error::new(Code::LimitExceeded, message));
        }
        match memchr::memchr(b'\t', text) {
            Some(tab) => emit(&text[..tab], &text[tab + 1..])?,
            None => emit(text, b"")?,
        }
    }
}

fn ended(command: &str, status: ExitStatus, tail: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    let said = if tail.is_empty() {
        "; it wrote nothing to standard error".to_owned()
    } else {
        format!("; the end of its standard error:\n{tail}")
    };
    Err(Error::new(Code::InvalidArgument, format!("the command {command:?} {how}{said}")))
}

/// Reads until the end, and keeps the last bytes as text.
fn tail_of(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 8 << 10];
    // An error of this pipe ends the tail: the exit status decides.
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(STDERR_TAIL_BYTES);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

fn watch_cancel(done: &mpsc::Receiver<()>, cancel: &Cancel, group: Pid) {
    while done.recv_timeout(WATCH_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        if cancel.is_cancelled() {
            kill(group);
            return;
        }
    }
}

fn kill(group: Pid) {
    if let Err(error) = kill_process_group(group, Signal::KILL) {
        tracing::debug!("process group {group:?} ended by itself: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(String, String)>;

    fn run_with(command: &str, cancel: &Cancel, input: &[(&str, &str)]) -> Result<(Pairs, bool)> {
        let mut pairs = Vec::new();
        let whole = run(
            command,
            &[("GRANARY_INPUT_PATH", "/in/a".into())],
            cancel,
            |out| input.iter().try_for_each(|(k, v)| out.pair(k.as_bytes(), v.as_bytes())),
            |k, v| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                pairs.push((text(k), text(v)));
                Ok(())
            },
        )?;
        Ok((pairs, whole.is_some()))
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn lines_go_through_a_command_and_split_at_the_first_tab() {
        let (pairs, whole) =
            run_with("cat; echo $GRANARY_INPUT_PATH", &Cancel::new(), &[("a", "1\t2"), ("b", "")])
                .unwrap();
        assert_eq!(pairs, [pair("a", "1\t2"), pair("b", ""), pair("/in/a", "")]);
        assert!(whole);
    }

    #[test]
    fn a_command_that_fails_is_shown_with_the_end_of_its_standard_error() {
        let script = "i=0; while [ $i -lt 500 ]; do echo line $i >&2; i=$((i+1)); done; exit 3";
        let error = run_with(script, &Cancel::new(), &[]).unwrap_err();
        assert!(
            error.message.contains("status 3") && error.message.ends_with("line 499"),
            "{error}"
        );
        assert!(!error.message.contains("line 0\n"), "only the end");
        let error = run_with("kill -9 $$", &Cancel::new(), &[]).unwrap_err();
        assert!(error.message.contains("signal 9"), "{error}");
        let error = run_with("no-such-command-here", &Cancel::new(), &[]).unwrap_err();
        assert!(error.message.contains("status 127"), "{error}");
    }

    #[test]
    fn a_command_may_leave_its_input_unread() {
        let value = "x".repeat(1 << 16);
        let many: Vec<(&str, &str)> = (0..100).map(|_| ("k", value.as_str())).collect();
        let (pairs, whole) = run_with("echo done", &Cancel::new(), &many).unwrap();
        assert_eq!(pairs, [pair("done", "")]);
        assert!(!whole);
    }

    #[test]
    fn a_command_that_writes_before_it_reads_does_not_block() {
        let value = "x".repeat(1 << 16);
        let many: Vec<(&str, &str)> = (0..50).map(|_| ("k", value.as_str())).collect();
        let (pairs, _) =
            run_with("head -c 300000 /dev/zero | tr '\\0' '\\n'; wc -l", &Cancel::new(), &many)
                .unwrap();
        assert_eq!(pairs.len(), 300_001);
        assert_eq!(pairs.last().unwrap().0.trim(), "50");
    }

    #[test]
    fn a_cancelled_command_is_killed_with_its_children() {
        let cancel = Cancel::new();
        let stop = cancel.clone();
        let started = std::time::Instant::now();
        let result = run(
            "echo started; sleep 600 & sleep 600",
            &[],
            &cancel,
            |_| Ok(()),
            |_, _| {
                stop.cancel();
                Ok(())
            },
        );
        assert_eq!(result.unwrap_err().code, Code::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn records_that_lines_cannot_carry_are_refused() {
        for (key, value) in [("a\tb", ""), ("a\nb", ""), ("a", "b\nc")] {
            let error = run_with("cat", &Cancel::new(), &[(key, value)]).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
        }
    }
}
