//! Standard output: lines, bytes, JSON and tables. The only place that writes to it.
//!
//! Buffered; a command ends with [`Out::finish`], so that a full disk or a reader who went away is noticed. JSON is
//! one document per command, indented on a terminal's behalf by nobody: pipe it into a formatter.

use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Standard output of one command.
pub struct Out {
    inner: BufWriter<Stdout>,
}

impl Out {
    /// Takes standard output.
    pub fn new() -> Self {
        Self { inner: BufWriter::with_capacity(64 << 10, std::io::stdout()) }
    }

    /// Writes one line.
    pub fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.inner, "{text}").map_err(|error| failed(&error))
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(|error| failed(&error))
    }

    /// Writes one JSON document and a line end.
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).expect("plain values serialise");
        self.line(text)
    }

    /// Sends out what is buffered.
    pub fn flush(&mut self) -> Result<()> {
        self.inner.flush().map_err(|error| failed(&error))
    }

    /// Sends out what is buffered and ends.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::io("write to standard output", error)
}

/// Writes one line to standard error. Nothing can be done if that fails.
pub fn note(text: impl Display) {
    // A closed standard error must not stop the work.
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Whether somebody watches standard error.
pub fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows in aligned columns, two spaces apart.
pub struct Table {
    head: Vec<&'static str>,
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; an empty head line is left out if all names are empty.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        let (head, align) = columns.iter().copied().unzip();
        Self { head, align, rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The lines, the head first.
    pub fn lines(&self) -> Vec<String> {
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        let shown = head.iter().any(|name| !name.is_empty()).then_some(&head);
        let all = || shown.into_iter().chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.align.len()).map(width).collect();
        all().map(|row| self.one_line(row, &widths)).collect()
    }

    fn one_line(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line.push_str(if column == 0 { "" } else { "  " });
            match self.align[column] {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// Writes it.
    pub fn print(&self, out: &mut Out) -> Result<()> {
        self.lines().into_iter().try_for_each(|line| out.line(line))
    }
}

/// Bytes for people: UTF-8 stays, the rest is escaped as `\xNN`, control characters too (a terminal obeys them).
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => shown.push_str("\\n"),
                '\t' => shown.push('\t'),
                c if c.is_control() => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right)]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["long name".into(), "1000".into()]);
        assert_eq!(table.lines(), ["name       size", "a             1", "long name  1000"]);
    }

    #[test]
    fn an_empty_first_cell_keeps_the_columns() {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        table.row(vec![String::new(), "x".into()]);
        table.row(vec!["ab".into(), "y".into()]);
        assert_eq!(table.lines(), ["    x", "ab  y"]);
    }

    #[test]
    fn bytes_that_a_terminal_would_obey_are_escaped() {
        assert_eq!(printable(b"a\x1b[2J\xff\xc3\xa4"), "a\\u{1b}[2J\\xff\u{e4}");
    }
}
