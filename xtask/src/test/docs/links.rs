//! Links within the repository: the file is there, and so is the heading. What is on the web is not asked.

use std::path::Path;

use anyhow::{Result, bail};

use super::Page;
use crate::shell;
use crate::test::deploy::rules::anchors;

/// Fails with all links that lead nowhere, and all pages that the book does not have.
pub(super) fn check(pages: &[Page]) -> Result<()> {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages {
        for link in links(&page.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            if !leads_somewhere(pages, page, link) {
                wrong.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    let book = pages.iter().find(|page| page.path == Path::new("docs/SUMMARY.md"));
    let listed: Vec<_> = book.into_iter().flat_map(|book| links(&book.text)).collect();
    for page in pages {
        let Ok(own) = page.path.strip_prefix("docs") else { continue };
        let own = own.to_string_lossy();
        if own != "SUMMARY.md" && !listed.contains(&&*own) {
            wrong.push(format!("docs/SUMMARY.md does not have {own}"));
        }
    }
    if !wrong.is_empty() {
        bail!("links that lead nowhere:\n  {}", wrong.join("\n  "));
    }
    println!("  {count} links lead somewhere");
    Ok(())
}

fn leads_somewhere(pages: &[Page], page: &Page, link: &str) -> bool {
    let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
    let target = if file.is_empty() {
        page.path.clone()
    } else {
        let from = page.path.parent().unwrap_or(Path::new(""));
        // Parts of a path, with those taken back that `..` takes back.
        from.join(file).components().fold(std::path::PathBuf::new(), |mut path, part| {
            match part {
                std::path::Component::ParentDir => drop(path.pop()),
                part => path.push(part),
            }
            path
        })
    };
    match heading {
        None => shell::root().join(&target).exists(),
        Some(heading) => {
            let found = pages.iter().find(|page| page.path == target);
            found.is_some_and(|found| anchors(&found.text).contains(heading))
        }
    }
}

/// The targets of a page's links, outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced || line.starts_with("    ") {
            continue;
        }
        // What is between backticks is no link.
        for part in line.split('`').step_by(2).flat_map(|part| part.split("](").skip(1)) {
            links.extend(part.split(')').next());
        }
        // A link's text may have backticks in it; then its target begins behind the last of them.
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_code_is_not() {
        let text = "[a](b.md) and [`c`](d.md#e)\n```\n[f](g)\n```\n    [h](i)\n`[j](k)`\n";
        assert_eq!(links(text), ["b.md", "d.md#e"]);
    }

    #[test]
    fn what_leads_nowhere_is_told_from_what_leads_somewhere() {
        let page = |path: &str, text: &str| Page { path: path.into(), text: text.to_owned() };
        let pages = [page("docs/a.md", "# One\n"), page("docs/design/b.md", "# Two\n")];
        let [a, b] = &pages;
        for (from, link, expected) in [
            (a, "#one", true),
            (a, "#two", false),
            (a, "design/b.md#two", true),
            (b, "../a.md#one", true),
            (b, "a.md#one", false),
            (b, "../../Cargo.toml", true),
            (b, "../Cargo.toml", false),
        ] {
            assert_eq!(leads_somewhere(&pages, from, link), expected, "{} {link}", from.path.display());
        }
    }
}
