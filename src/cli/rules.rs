//! `rules` and `schema`: the language, from the code.

use super::exit::Exit;
use super::report;
use super::setup::usage;
use crate::rule::{self, RULES};
use crate::spec::suggest;
use crate::ui;

pub(super) fn rules(name: Option<&str>) -> Result<Exit, Exit> {
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
            Err(usage(
                "imgdecl::cli::rule",
                &format!("there is no rule `{name}`"),
                Some(help),
            ))
        }
    }
}

pub(super) fn schema() -> Result<Exit, Exit> {
    print(&format!("{:#}\n", rule::schema()))
}

fn print(text: &str) -> Result<Exit, Exit> {
    ui::data(text).map(|()| Exit::Done).map_err(|error| {
        report::error("imgdecl::stdout", &error, None);
        Exit::Failed
    })
}
