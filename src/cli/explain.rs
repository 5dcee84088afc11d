//! `explain`: what an error code means, and what to do about it. All of its texts stand in `docs/errors.md`, which people
//! read as it is. `tests/codes.rs` holds that file and the codes in the source together.

use serde_json::{Value, json};

use super::args::Format;
use super::exit::Exit;
use super::print;
use crate::spec::suggest;
use crate::ui;
use crate::work::Failed;

/// The document.
const TEXT: &str = include_str!("../../docs/errors.md");

/// What all codes begin with.
const ROOT: &str = "imgdecl::";

/// The version of the JSON document. It is raised where a field goes away or means something else.
const VERSION: u32 = 1;

#[derive(clap::Args)]
pub(super) struct Explain {
    /// A code, as `imgdecl::base::layout` or `base::layout`; or an area, as `base` [default: all codes]
    #[arg(value_name = "CODE")]
    word: Option<String>,

    /// The form of what is printed to stdout
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// Codes that begin with the same word.
struct Area<'a> {
    /// The word, as `base`.
    name: &'a str,
    /// What it is about.
    title: &'a str,
    codes: Vec<Code<'a>>,
}

/// What is said of one code.
struct Code<'a> {
    /// The code, as `imgdecl::base::layout`.
    name: &'a str,
    area: &'a str,
    /// All exit codes that it leads to.
    exits: Vec<u8>,
    meaning: &'a str,
    remedy: &'a str,
    /// Lines of a manifest or a shell.
    example: Option<&'a str>,
}

pub(super) fn explain(args: &Explain) -> Result<Exit, Failed> {
    let areas = read(TEXT).map_err(|why| Failed::bug(&format!("docs/errors.md: {why}")))?;
    let all = || areas.iter().flat_map(|area| &area.codes);
    let Some(word) = &args.word else {
        return tell(args.format, &areas.iter().collect::<Vec<_>>());
    };
    let short = word.strip_prefix(ROOT);
    let is_it = |code: &&Code<'_>| match short {
        Some(_) => code.name == word,
        // A word alone names an area; that some codes have no other word is no matter.
        None => word.contains("::") && code.name.strip_prefix(ROOT) == Some(word),
    };
    if let Some(code) = all().find(is_it) {
        return match args.format {
            Format::Text => print(&code.text()),
            Format::Json => print(&document(&[code])),
        };
    }
    if let Some(area) = areas.iter().find(|area| area.name == word) {
        return tell(args.format, &[area]);
    }
    Err(Failed::usage(
        "imgdecl::cli::code",
        format!("there is no error code and no area `{word}`"),
        Some(help(short.unwrap_or(word), &areas)),
    ))
}

/// Says what an unknown code, without what all begin with, is most likely meant to be.
fn help(word: &str, areas: &[Area<'_>]) -> String {
    let codes = areas.iter().flat_map(|area| &area.codes);
    let codes: Vec<&str> = codes.filter_map(|it| it.name.strip_prefix(ROOT)).collect();
    // Some know the last word only.
    let ends: Vec<String> = codes
        .iter()
        .filter(|code| code.rsplit("::").next() == Some(word))
        .map(|code| format!("`{code}`"))
        .collect();
    if !ends.is_empty() {
        return format!("did you mean {}?", ends.join(", "));
    }
    let names = areas.iter().map(|area| area.name);
    match suggest(word, names.clone().chain(codes)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the areas are: {}", names.collect::<Vec<_>>().join(", ")),
    }
}

/// Lists the codes of areas, each with the beginning of what it means; a code that is alone is told in full.
fn tell(format: Format, areas: &[&Area<'_>]) -> Result<Exit, Failed> {
    let codes: Vec<&Code<'_>> = areas.iter().flat_map(|area| &area.codes).collect();
    match (format, &codes[..]) {
        (Format::Json, codes) => print(&document(codes)),
        (Format::Text, [code]) => print(&code.text()),
        (Format::Text, _) => {
            let tables: Vec<String> = areas.iter().map(|area| area.text()).collect();
            print(&tables.join("\n"))
        }
    }
}

fn document(codes: &[&Code<'_>]) -> String {
    let codes: Vec<Value> = codes.iter().map(|code| code.json()).collect();
    ui::json(json!({ "version": VERSION, "codes": codes }))
}

impl Area<'_> {
    fn text(&self) -> String {
        let width = self.codes.iter().map(|code| code.name.len()).max();
        let width = width.unwrap_or(0);
        let mut text = format!("{}: {}\n", self.name, self.title);
        for code in &self.codes {
            let meaning = line(code.meaning);
            let ends = [". ", ": ", "; "]
                .iter()
                .filter_map(|end| meaning.find(end));
            let first = &meaning[..ends.min().unwrap_or(meaning.len())];
            let first = first.trim_end_matches('.');
            text.push_str(&format!("  {:width$}  {first}\n", code.name));
        }
        text
    }
}

impl Code<'_> {
    fn text(&self) -> String {
        let exits: Vec<String> = self.exits.iter().map(u8::to_string).collect();
        let word = match exits.len() {
            1 => "exit code",
            _ => "exit codes",
        };
        let (name, exits) = (self.name, exits.join(", "));
        let mut text = format!("{name} ({word} {exits})\n\n{}\n\n", self.meaning);
        text.push_str(&format!("What to do: {}\n", self.remedy));
        if let Some(example) = self.example {
            text.push('\n');
            for line in example.lines() {
                let line = format!("    {line}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "code": self.name,
            "area": self.area,
            "exits": self.exits,
            "meaning": line(self.meaning),
            "remedy": line(self.remedy),
            "example": self.example,
        })
    }
}

/// Returns a paragraph as one line.
fn line(paragraph: &str) -> String {
    paragraph.lines().collect::<Vec<_>>().join(" ")
}

/// Takes the document apart: its beginning says which form it has.
fn read(text: &str) -> Result<Vec<Area<'_>>, String> {
    text.split("\n## ").skip(1).map(read_area).collect()
}

fn read_area(text: &str) -> Result<Area<'_>, String> {
    let mut parts = text.split("\n### ");
    let head = parts.next().unwrap_or_default().trim_end();
    let (name, title) = head
        .split_once(": ")
        .ok_or_else(|| format!("`{head}` is no area and its title"))?;
    let codes = parts.map(|part| {
        let code = read_code(name, part.trim_end());
        code.ok_or_else(|| format!("`{}`: wrong form", part.lines().next().unwrap_or_default()))
    });
    Ok(Area {
        name,
        title,
        codes: codes.collect::<Result<_, String>>()?,
    })
}

fn read_code<'a>(area: &'a str, text: &'a str) -> Option<Code<'a>> {
    let mut parts = text.splitn(5, "\n\n");
    let name = parts.next()?;
    let exits = parts.next()?;
    let exits = exits
        .strip_prefix("Exit code: ")
        .or_else(|| exits.strip_prefix("Exit codes: "))?;
    let exits: Result<Vec<u8>, _> = exits.split(", ").map(str::parse).collect();
    let meaning = parts.next()?;
    let remedy = parts.next()?.strip_prefix("What to do: ")?;
    let example = match parts.next() {
        None => None,
        Some(block) => {
            let block = block.strip_prefix("```")?.strip_suffix("\n```")?;
            Some(block.split_once('\n')?.1)
        }
    };
    let rest = name.strip_prefix(ROOT)?.strip_prefix(area)?;
    (rest.is_empty() || rest.starts_with("::")).then_some(Code {
        name,
        area,
        exits: exits.ok()?,
        meaning,
        remedy,
        example,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_its_form() {
        let areas = read(TEXT).unwrap();
        assert!(areas.len() > 20);
        for area in &areas {
            assert!(!area.codes.is_empty(), "{}", area.name);
        }
        let wrong = [
            "\n## base\n",
            "\n## base: x\n\n### imgdecl::base::a\n",
            "\n## base: x\n\n### imgdecl::cache::a\n\nExit code: 1\n\nm\n\nWhat to do: r\n",
            "\n## base: x\n\n### imgdecl::base::a\n\nExit code: one\n\nm\n\nWhat to do: r\n",
            "\n## base: x\n\n### imgdecl::base::a\n\nExit code: 1\n\nm\n\nr\n",
            "\n## base: x\n\n### imgdecl::base::a\n\nExit code: 1\n\nm\n\nWhat to do: r\n\nmore\n",
        ];
        for text in wrong {
            assert!(read(text).is_err(), "{text}");
        }
        let right = "\n## base: x\n\n### imgdecl::base::a\n\nExit codes: 1, 2\n\nm\nn\n\nWhat to do: r\n\n```sh\ne\n\nf\n```\n";
        let areas = read(right).unwrap();
        let code = &areas[0].codes[0];
        assert_eq!(
            (&code.exits[..], code.example),
            (&[1, 2][..], Some("e\n\nf"))
        );
        assert_eq!(
            format!(">{}", code.text()),
            ">imgdecl::base::a (exit codes 1, 2)\n\nm\nn\n\nWhat to do: r\n\n    e\n\n    f\n"
        );
    }

    #[test]
    fn slips_of_the_pen_are_known() {
        let areas = read(TEXT).unwrap();
        assert_eq!(help("base::layot", &areas), "did you mean `base::layout`?");
        assert_eq!(help("bse", &areas), "did you mean `base`?");
        assert!(
            help("damaged", &areas).starts_with("did you mean `archive::damaged`, `base::damaged`")
        );
        assert!(help("nothing-like-it", &areas).starts_with("the areas are: archive, base, bug"));
    }
}
