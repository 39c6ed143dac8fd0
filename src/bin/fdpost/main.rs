//! The command `fdpost`.
#![forbid(unsafe_code)]

mod accepting;
mod artefact;
mod broker;
mod brokered;
mod call;
mod child;
mod closing;
mod content;
mod conversation;
mod demo;
mod event;
mod exit;
mod footprint;
mod hostile;
mod inspect;
mod inspect_peers;
mod inspect_record;
mod inspect_relay;
mod inspect_show;
mod inspect_sides;
mod kinds;
mod listening;
mod numbers;
mod options;
mod pages;
mod picture;
mod replay;
mod run;
mod save;
mod send;
mod serve;
mod svg;

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What an act of the demo comes to: the error is the one sentence that the user reads.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Whole messages with file descriptors between processes that do not trust each other.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
A file descriptor is the small number under which a process knows an open file, memory or socket.
AF_UNIX sockets carry them to other processes; fdpost speaks the byte formats (--profile) in which
programs do that, and says by name which rule a peer broke.

Try it:
  fdpost run --profile packet --reply echo -- fdpost send --fd '{}' --profile packet --data hello --expect-reply

Exit status: 0 well, 64 usage, 65 the peer broke a rule, 74 this side or I/O failed, 75 no reply in time."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two processes exchange a picture as file descriptors; then a hostile peer is refused.
    Demo,
    Serve(serve::Options),
    Send(send::Options),
    Call(call::Options),
    Run(run::Options),
    Broker(broker::Options),
    Inspect(inspect::Options),
    Replay(replay::Options),
    Completions(pages::Completions),
    Man(pages::Man),
    /// Becomes the command that `fdpost run` starts.
    #[command(hide = true)]
    RunChild(run::ChildOptions),
    /// The demo's second process: inverts one picture, over the socket that is its standard input.
    #[command(hide = true)]
    DemoInverter,
    /// The demo's hostile peer, over the socket that is its standard input.
    #[command(hide = true)]
    DemoHostile {
        /// What it sends.
        attack: hostile::Attack,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Demo => demo_outcome(demo::run()),
        Command::DemoInverter => demo_outcome(picture::invert()),
        Command::DemoHostile { attack } => demo_outcome(hostile::attack(attack)),
        Command::Serve(options) => outcome(serve::run(&options)),
        Command::Send(options) => outcome(send::run(&options)),
        Command::Call(options) => outcome(call::run(&options)),
        Command::Run(options) => outcome(run::run(&options)),
        Command::Broker(options) => outcome(broker::run(&options)),
        Command::RunChild(options) => outcome(run::become_command(&options)),
        Command::Inspect(options) => inspect::run(options),
        Command::Replay(options) => replay::run(options),
        Command::Completions(options) => outcome(pages::completions(&options)),
        Command::Man(options) => outcome(pages::man(&options)),
    }
}

fn demo_outcome(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            exit::say(error);
            ExitCode::FAILURE
        }
    }
}

fn outcome(outcome: exit::Outcome) -> ExitCode {
    outcome.map_or_else(exit::Failure::report, |()| ExitCode::SUCCESS)
}

/// What is wrong with the command line, in one sentence; or the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let Some(what) = text.strip_prefix("error: ") else {
        // A reader that went away has seen enough.
        let _help_is_printed = error.print();
        return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
    };
    let first: Vec<&str> = what.split("\n\n").next().unwrap_or(what).split_whitespace().collect();
    let subcommand = std::env::args_os().nth(1).and_then(|word| known(&word));
    let see = subcommand.map_or_else(String::new, |name| format!("{name} "));
    exit::Failure::usage(format_args!("{}; `fdpost {see}--help` says what belongs there", first.join(" ")))
        .report()
}

fn known(word: &OsString) -> Option<String> {
    use clap::CommandFactory;
    let command = Cli::command();
    let found = command.get_subcommands().find(|subcommand| subcommand.get_name() == word.as_os_str())?;
    Some(found.get_name().to_owned())
}
