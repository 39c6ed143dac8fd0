//! What packagers install beside the command.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::exit::{Failure, Outcome};

/// Print a shell's completions.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: fdpost completions bash > ~/.local/share/bash-completion/completions/fdpost"
)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

/// Print a manual page.
#[derive(Args, Debug)]
#[command(after_help = "Example: fdpost man serve | man -l -")]
pub(crate) struct Man {
    /// Of which subcommand; without it, of the whole command
    subcommand: Option<String>,
}

pub(crate) fn completions(options: &Completions) -> Outcome {
    // Into memory first: `generate` panics where its output fails.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "fdpost", &mut script);
    Ok(io::stdout().write_all(&script)?)
}

pub(crate) fn man(options: &Man) -> Outcome {
    let mut command = Cli::command();
    command.build();
    let page = match &options.subcommand {
        None => command,
        Some(name) => {
            let found = command.get_subcommands().find(|one| one.get_name() == name && !one.is_hide_set());
            let unknown = || {
                Failure::usage(format_args!(
                    "there is no subcommand {name}; see `fdpost --help` for the names"
                ))
            };
            found.ok_or_else(unknown)?.clone().version(env!("CARGO_PKG_VERSION"))
        }
    };
    Ok(clap_mangen::Man::new(page).render(&mut io::stdout().lock())?)
}
