//! A broker's events, a line each.

use std::io;

use fdpost::broker::{Answer, Ask, Id, Registration, Request};
use fdpost::driver::Departure;
use fdpost::{BrokerEvent, Credentials, Error, Refusal};
use serde_json::json;

use crate::event::{Fields, print};

pub(crate) fn plain(json: bool, event: &'static str) -> io::Result<()> {
    print(json, vec![("event", json!(event))], event)
}

pub(crate) fn tell(json: bool, event: &BrokerEvent) -> io::Result<()> {
    let (fields, text) = match event {
        BrokerEvent::Connected { id, party } => (begin("connected", Some(*id), party), String::new()),
        BrokerEvent::TurnedAway { party, refusal } => {
            let why = refusal.as_ref().map_or("rule", Refusal::name);
            let mut fields = begin("turned-away", None, party);
            fields.push(("refusal", json!(why)));
            (fields, why.to_owned())
        }
        BrokerEvent::Answered { id, party, request, answer } => answered(*id, party, request, answer),
        BrokerEvent::Left { id, party, names, why } => left(*id, party, *names, why),
        // What is to come is told when it stands here.
        _ => return Ok(()),
    };
    let who = |fields: &Fields| {
        let shown =
            fields.iter().skip(1).take_while(|(name, _)| matches!(*name, "id" | "pid" | "uid" | "gid"));
        let shown: Vec<String> = shown.map(|(name, value)| format!("{name} {value}")).collect();
        shown.join(", ")
    };
    let event = fields.first().and_then(|(_, value)| value.as_str()).unwrap_or_default();
    let text = [format!("{event}: {}", who(&fields)), text];
    let text: Vec<&str> = text.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    print(json, fields.clone(), &text.join(", "))
}

fn begin(event: &'static str, id: Option<Id>, party: &Credentials) -> Fields {
    let mut fields = vec![("event", json!(event))];
    fields.extend(id.map(|Id(id)| ("id", json!(id))));
    fields.extend([("pid", json!(party.pid)), ("uid", json!(party.uid)), ("gid", json!(party.gid))]);
    fields
}

fn answered(id: Id, party: &Credentials, request: &Request, answer: &Answer) -> (Fields, String) {
    let (asked, wire) = match request {
        Request::Register(Registration { wire, .. }) => ("register", Some(wire)),
        Request::Ask(Ask { wire, .. }) => ("ask", Some(wire)),
        _ => ("withdraw", None),
    };
    let event = match (answer, asked) {
        (Answer::Refused(_), _) => "refused",
        (Answer::Granted(_), _) => "granted",
        (_, "register") => "registered",
        _ => "withdrawn",
    };
    let name = request.name().as_str();
    let mut fields = begin(event, Some(id), party);
    let mut text = format!("{name:?}");
    fields.push(("name", json!(name)));
    if let Some(wire) = wire {
        fields.push(("wire", json!(wire.name.as_str())));
        text += &format!(", wire {}", wire.name);
    }
    if let Answer::Refused(refusal) = answer {
        fields.extend([("request", json!(asked)), ("refusal", json!(refusal.name()))]);
        text += &format!(", {asked}: {}", refusal.name());
    }
    (fields, text)
}

fn left(id: Id, party: &Credentials, names: u32, why: &Departure) -> (Fields, String) {
    let mut fields = begin("left", Some(id), party);
    let (reason, more) = match why {
        Departure::Closed => ("closed", None),
        Departure::Died => ("died", None),
        Departure::Unread => ("unread", None),
        Departure::Exhausted => ("exhausted", None),
        Departure::Failed(Error::Violation(violation)) => (violation.rule(), Some(violation.to_string())),
        Departure::Failed(error) => ("error", Some(error.to_string())),
        _ => ("other", None),
    };
    fields.extend([("names", json!(names)), ("why", json!(reason))]);
    let mut text = reason.to_owned();
    if let Some(more) = more {
        fields.push(("text", json!(more)));
        text += &format!(": {more}");
    }
    (fields, text)
}
