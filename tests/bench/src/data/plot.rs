//! A picture of the table: for each row a bar for what is left of the speed without a mesh, and one for each agent's cost.

use std::fmt::Write as _;

use super::case::{Better, CASES, Case};
use super::report::Measured;

const WIDTH: u32 = 860;
const LEFT: u32 = 230;
const BAR: u32 = 15;
const GAP: u32 = 12;
const TOP: u32 = 54;
/// Of the bars, in the order of the agents; none is a signal colour, and they differ in brightness too.
const COLOURS: [&str; 4] = ["#1b5e8c", "#e0923d", "#6a8f3c", "#8a5a9e"];

/// The picture of all agents on the same CPUs, as SVG.
pub(super) fn svg(title: &str, agents: &[&Measured]) -> String {
    let row = BAR * agents.len() as u32 + GAP;
    let height = TOP + row * CASES.len() as u32 + 20;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}</text>\n",
        escaped(title),
    );
    for (index, agent) in (0..).zip(agents) {
        let x = LEFT + index * 160;
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{}\"/>\n<text x=\"{}\" y=\"40\">{}</text>\n",
            colour(index),
            x + 17,
            escaped(&agent.agent),
        );
    }
    for (number, case) in (0..).zip(CASES) {
        let y = TOP + row * number;
        let _ = writeln!(svg, "<text x=\"10\" y=\"{}\">{}</text>", y + 12, escaped(case.title()));
        for (index, agent) in (0..).zip(agents) {
            bar(&mut svg, (y + BAR * index, index), case, agent);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One bar: as long as the mesh's figure beside that without, with both figures and the cost behind it.
fn bar(svg: &mut String, (y, index): (u32, u32), case: Case, agent: &Measured) {
    let ([direct, meshed], [_, cost]) = (agent.figures(case), agent.costs(case));
    let (direct, meshed, cost) = (direct.median, meshed.median, cost.median);
    let share = match case.better() {
        Better::More => meshed / direct.max(f64::MIN_POSITIVE),
        Better::Less => direct / meshed.max(f64::MIN_POSITIVE),
    };
    let full = f64::from(WIDTH - LEFT) * 0.45;
    let length = (share.clamp(0.0, 1.0) * full).round();
    let digits = usize::from(meshed < 1000.0);
    let (unit, per) = (case.unit(), case.cost_unit());
    let _ = write!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{full:.0}\" height=\"{}\" fill=\"#eceff1\"/>\n\
         <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length}\" height=\"{}\" fill=\"{}\"/>\n\
         <text x=\"{:.0}\" y=\"{}\" font-size=\"11\">{meshed:.digits$} of {direct:.digits$} {unit}; {cost:.3} {per}</text>\n",
        BAR - 2,
        BAR - 2,
        colour(index),
        f64::from(LEFT) + full + 8.0,
        y + 11,
    );
}

pub(super) fn colour(index: u32) -> &'static str {
    COLOURS.iter().cycle().nth(index as usize).copied().unwrap_or("#000000")
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::case::Round;
    use super::super::memory::Memory;
    use super::super::slice::Slice;
    use super::*;
    use crate::traffic::Outcome;

    #[test]
    fn a_bar_is_as_long_as_what_is_left() {
        let slice = |bytes| Slice {
            outcome: Outcome { seconds: 1.0, bytes, ..Outcome::default() },
            agents: [0.1, 0.1],
            load: 0.1,
        };
        let rounds = vec![Round { case: Case::Bulk1, direct: slice(4 << 30), meshed: slice(2 << 30) }];
        let steady = [slice(0), slice(0)];
        let measured = Measured::new("a<b".into(), "one CPU", rounds, Memory::default(), steady);
        let svg = svg("title", &[&measured]);
        // Half of 45 % of what is right of the names.
        assert!(svg.contains("width=\"142\"") && svg.contains("17.2 of 34.4 Gb/s"), "{svg}");
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
