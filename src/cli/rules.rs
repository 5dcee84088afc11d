//! `rules` and `schema`: the language, from the code.

use super::exit::Exit;
use super::print;
use crate::rule::{self, RULES};
use crate::spec::suggest;
use crate::work::Failed;

pub(super) fn rules(name: Option<&str>) -> Result<Exit, Failed> {
    let Some(name) = name else {
        let tables: Vec<String> = rule::TABLES.iter().map(|it| format!("`{it}`")).collect();
        let tables = format!(
            "\nThe tables {} are no rules, and have a reference, too: `imgdecl rules index`.\n",
            tables.join(", ")
        );
        return print(&(rule::table_of_rules() + &tables));
    };
    match RULES.iter().find(|rule| rule.name() == name) {
        Some(rule) => print(&rule::reference(*rule)),
        None => {
            if let Some(text) = rule::reference_of_table(name) {
                return print(&text);
            }
            let mut names = rule::names();
            names.extend(rule::TABLES);
            let help = match suggest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the rules and tables are: {}", names.join(", ")),
            };
            Err(Failed::usage(
                "imgdecl::cli::rule",
                format!("there is no rule `{name}`"),
                Some(help),
            ))
        }
    }
}

pub(super) fn schema() -> Result<Exit, Failed> {
    print(&format!("{:#}\n", rule::schema()))
}
