//! `fdpost replay`: feeds a transcript to the machine and tells what it decided and why.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use fdpost::transcript::{Decision, Direction, Happened, Rule, Step, Transcript, Verdict, replay};
use fdpost::{Fault, Libcamera, Packet, Stream};
use serde_json::json;

use crate::artefact;
use crate::exit::{self, Failure};
use crate::inspect_show::{Item, Passed, Show, micros};
use crate::numbers::numbers;
use crate::options::{Format, Profile};
use crate::svg::Diagram;

/// Feed a transcript to the machine and tell step by step what it decided and why.
#[derive(Args, Debug)]
#[command(after_help = "\
A transcript is what `fdpost inspect --record FILE` writes: what each side's receiver met, read by
read (docs/TRANSCRIPT.md). No socket is opened and no time passes: the same file always gives the
same answer. A line per step: number, direction, time, what was read; then the machine's state
before and after, and its decision.

What a fuzzer found for the target `transcript` is one too; what it found for the target `receiver`
stands for one and needs --artefact.

Exit status: 0 no rule was broken, 64 usage or no transcript, 65 a rule was broken, 74 descriptors
were lost or I/O failed.")]
pub(crate) struct Options {
    /// The transcript, or the artefact
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// FILE is what the fuzz target `receiver` found: bytes that stand for a conversation
    #[arg(long)]
    pub(crate) artefact: bool,
    /// Draw the conversation as a sequence diagram
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
}

pub(crate) fn run(options: Options) -> ExitCode {
    match feed(&options) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(),
    }
}

fn feed(options: &Options) -> exit::Outcome<u8> {
    let name = options.file.display().to_string();
    let bytes =
        std::fs::read(&options.file).map_err(|error| Failure::io(format_args!("reading {name}"), &error))?;
    let transcript =
        if options.artefact { artefact::transcript(&name, &bytes) } else { parse(&name, &bytes) }?;
    drop(bytes);
    let profile = match transcript.wire() {
        "libcamera" => Profile::Libcamera,
        "packet" => Profile::Packet,
        "stream" => Profile::Stream,
        other => {
            return Err(Failure::usage(format_args!(
                "{name} is of the wire {other}; this command speaks libcamera, packet and stream"
            )));
        }
    };
    let names = transcript.sides().map(str::to_owned);
    let mut teller = Teller {
        show: Show { profile, json: options.format.json, names: names.clone() },
        diagram: Diagram::new(transcript.wire(), names),
        kinds: Default::default(),
        number: 0,
        error: None,
    };
    let tell = &mut |step: Step<'_>| teller.step(&step);
    let verdicts = match profile {
        Profile::Libcamera => replay::<Libcamera>(&transcript, tell),
        Profile::Packet => replay::<Packet>(&transcript, tell),
        _ => replay::<Stream>(&transcript, tell),
    };
    let verdicts =
        verdicts.map_err(|error| Failure::usage(format_args!("{name}: {error}; choose another file")))?;
    teller.verdicts(&verdicts)?;
    if let Some(path) = &options.svg {
        teller.diagram.write(path)?;
    }
    Ok(verdicts.iter().map(status).fold(0, worse))
}

fn parse(name: &str, bytes: &[u8]) -> exit::Outcome<Transcript> {
    Transcript::from_bytes(bytes).map_err(|error| match error.rule {
        Rule::Version => Failure::usage(format_args!(
            "{name} is no transcript of version 1; if the fuzz target `receiver` found it, add --artefact"
        )),
        _ => Failure::usage(format_args!("{name}: {error}; docs/TRANSCRIPT.md says what belongs there")),
    })
}

/// A broken rule is the news, whatever else there is.
fn worse(one: u8, two: u8) -> u8 {
    if [one, two].contains(&exit::VIOLATION) { exit::VIOLATION } else { one.max(two) }
}

const fn status(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::More | Verdict::End => 0,
        Verdict::Fault(Fault::Violation(_)) => exit::VIOLATION,
        Verdict::Fault(_) => exit::IO,
    }
}

struct Teller {
    show: Show,
    diagram: Diagram,
    /// Kinds of the descriptors that came and are in no message yet, by direction.
    kinds: [VecDeque<String>; 2],
    /// The event whose descriptors were counted last.
    number: usize,
    error: Option<std::io::Error>,
}

impl Teller {
    fn step(&mut self, step: &Step<'_>) {
        self.came(step);
        self.draw(step);
        if self.error.is_none() {
            self.error = self.print(step).err();
        }
    }

    /// Notes what the descriptors of an event are, once for all of its steps.
    fn came(&mut self, step: &Step<'_>) {
        if std::mem::replace(&mut self.number, step.number) == step.number {
            return;
        }
        if let Happened::Read(read) = &step.event.happened {
            let known = read.kinds().map(str::to_owned);
            let all = known.chain(std::iter::repeat_with(|| "unknown".to_owned()));
            self.kinds[step.event.direction as usize].extend(all.take(read.descriptors.into()));
        }
    }

    fn draw(&mut self, step: &Step<'_>) {
        let (direction, at) = (step.event.direction, step.event.at);
        let item = match &step.decision {
            Decision::Message(message) => {
                let kinds = &mut self.kinds[direction as usize];
                let kinds = kinds.drain(..message.descriptor_count().min(kinds.len())).collect();
                Item::Message(Passed::new(direction, at, *message.head(), message.payload(), kinds))
            }
            Decision::End => Item::Closed { direction, at, by_sender: true },
            Decision::Fault(Fault::Violation(violation)) => {
                Item::Violation { direction, at, violation: *violation }
            }
            Decision::Fault(fault) => {
                let rule = Verdict::Fault(*fault).name();
                Item::Error { direction, at, rule, text: fault.to_string() }
            }
            _ => return,
        };
        self.diagram.add(&item);
    }

    fn print(&self, step: &Step<'_>) -> std::io::Result<()> {
        let [before, after] = step.states();
        let mut fields = vec![
            ("event", json!("step")),
            ("number", json!(step.number)),
            ("from", json!(self.show.names[step.event.direction as usize])),
            ("micros", json!(micros(step.event.at))),
        ];
        match &step.event.happened {
            Happened::Block => fields.push(("met", json!("block"))),
            Happened::Read(read) => fields.extend([
                ("met", json!("read")),
                ("bytes", json!(read.bytes.len())),
                ("descriptors", json!(read.descriptors)),
            ]),
        }
        fields.extend([("before", json!(before)), ("after", json!(after))]);
        if let Some(deadline) = step.deadline {
            fields.push(("deadline", json!(micros(deadline))));
        }
        let decision = match &step.decision {
            Decision::Message(_) => "message",
            Decision::More => "more",
            Decision::End => "end",
            Decision::Fault(_) => "fault",
            Decision::Ignored => "ignored",
        };
        fields.push(("decision", json!(decision)));
        match &step.decision {
            Decision::Message(message) => fields.extend([
                ("message_bytes", json!(message.payload().len())),
                ("message_descriptors", json!(message.descriptor_count())),
            ]),
            Decision::Fault(fault) => {
                fields.push(("rule", json!(Verdict::Fault(*fault).name())));
                if let Fault::Violation(violation) = fault {
                    fields.extend(numbers(violation).into_iter().filter(|(name, _)| {
                        // Names that the step itself has.
                        !["bytes", "descriptors"].contains(name)
                    }));
                }
            }
            _ => {}
        }
        fields.push(("text", json!(step.reason().to_string())));
        self.show.line(fields, &step.to_string())
    }

    fn verdicts(&mut self, verdicts: &[Verdict; 2]) -> exit::Outcome {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        for (direction, verdict) in [Direction::Forth, Direction::Back].into_iter().zip(verdicts) {
            let (name, from) = (verdict.name(), &self.show.names[direction as usize]);
            let fields = vec![("event", json!("verdict")), ("from", json!(from)), ("verdict", json!(name))];
            self.show.line(fields, &format!("what {from} sent: {name}"))?;
        }
        Ok(())
    }
}
