//! `rules` and `schema`: the language, from the code.

use super::exit::Exit;
use super::print;
use crate::rule::{self, RULES};
use crate::spec::suggest;
use crate::work::Failed;

pub(super) fn rules(name: Option<&str>) -> Result<Exit, Failed> {
    let Some(name) = name else {
        return print(&rule::table_of_rules());
    };
    match RULES.iter().find(|rule| rule.name() == name) {
        Some(rule) => print(&rule::reference(*rule)),
        None => {
            let names = rule::names();
            let help = match suggest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the rules are: {}", names.join(", ")),
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
