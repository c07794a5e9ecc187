//! A table of words in columns.
//!
//! Invariant: a cell stays in its line and its column whatever is in it, and columns are as wide as what is seen of their widest cell.

use super::output::{Paint, Tone, harmless};

/// What stands between two columns.
const GAP: &str = "  ";
/// What stands where there is nothing.
const NOTHING: &str = "-";

/// One word.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// In a tone.
    pub(super) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: harmless(text), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text.as_ref(), Tone::Plain)
    }
}

/// Rows below a head.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// Without rows.
    pub(super) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The table as a text of lines. A column of which no row says anything is left out.
    pub(super) fn render(&self, paint: Paint) -> String {
        let said = |column: usize| {
            self.rows.iter().any(|row| row.get(column).is_some_and(|cell| !cell.text.is_empty()))
        };
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widths = cells.map(|cell| cell.text.chars().count());
            widths.chain(self.head.get(column).map(|head| head.len())).max().unwrap_or_default()
        };
        let columns: Vec<(usize, usize)> = (0..N)
            .filter(|column| said(*column) || self.rows.is_empty())
            .map(|column| (column, width(column)))
            .collect();
        let head = self.head.map(Cell::from);
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            let mut due = 0;
            for (column, width) in &columns {
                let Some(cell) = row.get(*column) else { continue };
                let shown = if cell.text.is_empty() { NOTHING } else { &cell.text };
                line.push_str(&" ".repeat(due));
                line.push_str(&paint.text(shown, cell.tone));
                due = GAP.len() + width.saturating_sub(shown.chars().count());
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_seen() {
        let mut table = Table::new(["NAME", "STATE", "WHY"]);
        table.push(["é".into(), Cell::toned("good", Tone::Good), "".into()]);
        table.push(["long-name".into(), "".into(), "".into()]);
        assert_eq!(table.render(Paint::default()), "NAME       STATE\né          good\nlong-name  -\n");
        let line = "é          \x1b[32mgood\x1b[0m";
        assert_eq!(table.render(Paint::always()).lines().nth(1), Some(line));
        table.push(["x".into(), "".into(), "two\nlines".into()]);
        assert!(table.render(Paint::default()).ends_with("x          -      two\\nlines\n"));
        assert_eq!(Table::new(["A", "B"]).render(Paint::default()), "A  B\n");
    }
}
