//! A picture of how things grow: a panel for each curve, with the way without a mesh in grey and a line for each agent.
//!
//! Points stand side by side in the order of their size: each is a multiple of the one before.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::growth::{CURVES, Point, unit};
use super::plot::{colour, escaped};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 220.0;
/// Around what is drawn of a panel.
const MARGIN: f64 = 46.0;
const TOP: f64 = 60.0;

/// The picture of all points, as SVG.
pub(super) fn svg(title: &str, points: &[Point]) -> String {
    let lines: BTreeSet<(&str, usize)> = points.iter().map(|one| (one.agent.as_str(), one.workers)).collect();
    let (width, height) = (2.0 * WIDTH, TOP + 2.0 * HEIGHT);
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}</text>\n",
        escaped(title),
    );
    let names =
        lines.iter().map(|(agent, workers)| format!("{agent}, workers: {workers}; without a mesh grey"));
    for (index, name) in (0..).zip(names) {
        let x = 10 + index * 250;
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{}\"/>\n<text x=\"{}\" y=\"42\">{}</text>\n",
            colour(index),
            x + 17,
            escaped(&name),
        );
    }
    for (number, what) in (0_u8..).zip(CURVES) {
        let (x, y) = (f64::from(number % 2) * WIDTH, TOP + f64::from(number / 2) * HEIGHT);
        let own: Vec<&Point> = points.iter().filter(|point| point.what == what).collect();
        panel(&mut svg, (x, y), what, &own, &lines);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(
    svg: &mut String,
    (x, y): (f64, f64),
    what: &str,
    points: &[&Point],
    lines: &BTreeSet<(&str, usize)>,
) {
    let places: Vec<usize> = points.iter().map(|one| one.at).collect::<BTreeSet<_>>().into_iter().collect();
    let most = points.iter().flat_map(|one| one.figures()).fold(f64::MIN_POSITIVE, f64::max);
    let step = (WIDTH - 2.0 * MARGIN) / (places.len().saturating_sub(1).max(1)) as f64;
    let across = |at: usize| x + MARGIN + step * places.iter().position(|one| *one == at).unwrap_or(0) as f64;
    let up = |value: f64| y + HEIGHT - MARGIN - value / most * (HEIGHT - 2.0 * MARGIN);
    let (left, right, bottom) = (x + MARGIN, x + WIDTH - MARGIN, up(0.0));
    let digits = usize::from(most < 1000.0);
    let _ = write!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-size=\"12\">{}, {}</text>\n\
         <path d=\"M{left} {} H{right} M{left} {bottom} H{right}\" stroke=\"#cfd8dc\" fill=\"none\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most:.digits$}</text>\n",
        y + MARGIN - 14.0,
        escaped(what),
        unit(what),
        up(most),
        left - 4.0,
        up(most) + 4.0,
    );
    for at in &places {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{at}</text>",
            across(*at),
            bottom + 14.0
        );
    }
    for (index, (agent, workers)) in (0..).zip(lines) {
        let own = || points.iter().filter(|one| one.agent == *agent && one.workers == *workers);
        for (side, stroke) in [(0_usize, "#b0bec5"), (1, colour(index))] {
            let corner = |one: &&Point| {
                let value = one.figures().get(side).copied().unwrap_or_default();
                format!("{:.0},{:.0}", across(one.at), up(value))
            };
            let corners: Vec<String> = own().map(corner).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" stroke=\"{stroke}\" stroke-width=\"2\" fill=\"none\"/>",
                corners.join(" ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::growth::BULK;
    use super::super::slice::Slice;
    use super::*;
    use crate::traffic::Outcome;

    #[test]
    fn a_curve_rises_from_the_bottom_to_the_top() {
        let slice = |bytes: u64| Slice {
            outcome: Outcome { seconds: 1.0, bytes, ..Outcome::default() },
            agents: [0.1, 0.1],
            load: 0.1,
        };
        let point = |at, direct, meshed| Point {
            what: BULK,
            at,
            agent: "culvert".into(),
            workers: 1,
            direct: slice(direct),
            meshed: slice(meshed),
        };
        let svg = svg("a<b", &[point(1, 1 << 30, 0), point(8, 1 << 30, 1 << 30)]);
        // From the left of the first panel at its bottom to its right at its top, where the way without a mesh has been all along.
        assert!(
            svg.contains("points=\"46,234 354,106\"") && svg.contains("points=\"46,106 354,106\""),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
