//! Answers that are one long text: the configuration in force, the metrics. Told in pieces, and cut where they are too long.

use std::io;

use prometheus_client::encoding::text::encode;

use super::protocol::Answer;
use super::{Subjects, Teller};

/// Bytes of a piece: within a message, however much of it has to be escaped.
const PIECE: usize = 8 * 1024;
/// Bytes that are told of one text.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Tells the configuration in force, as JSON without secrets.
pub(super) fn config(subjects: &Subjects, send: &mut Teller<'_>) -> io::Result<()> {
    pieces(&serde_json::to_string_pretty(&subjects.config)?, send)
}

/// Tells the metrics, as they are scraped.
pub(super) fn metrics(subjects: &Subjects, send: &mut Teller<'_>) -> io::Result<()> {
    let mut text = String::new();
    encode(&mut text, &subjects.registry).map_err(io::Error::other)?;
    pieces(&text, send)
}

fn pieces(text: &str, send: &mut Teller<'_>) -> io::Result<()> {
    let mut rest = text;
    let mut told = 0;
    while !rest.is_empty() && told < MAX_TEXT {
        let end =
            (0..=PIECE.min(rest.len())).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or_default();
        let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        send(Answer::Piece { text: piece.to_owned() })?;
        (rest, told) = (after, told + end);
    }
    if rest.is_empty() { Ok(()) } else { send(Answer::LeftOut { count: rest.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_in_pieces_and_is_cut_where_it_is_too_long() {
        for length in [0, 1, PIECE, PIECE + 1, MAX_TEXT + PIECE + 2] {
            let text = "é".repeat(length / 2) + if length % 2 == 0 { "" } else { "x" };
            let (mut told, mut left_out) = (String::new(), 0);
            pieces(&text, &mut |answer| {
                match answer {
                    Answer::Piece { text } => told.push_str(&text),
                    Answer::LeftOut { count } => left_out = count,
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
            assert!(text.starts_with(&told));
            assert_eq!(told.len() + left_out, text.len());
            assert_eq!(left_out > 0, length > MAX_TEXT);
        }
    }
}
