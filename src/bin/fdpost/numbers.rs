//! The numbers that a violation carries, under the names of the library's own fields.

use fdpost::Violation;
use fdpost::error::Malformed;
use serde_json::{Value, json};

/// `{ field, field }` of one variant as pairs of name and value.
macro_rules! pairs {
    ($($field:ident),*) => { vec![$((stringify!($field), json!($field))),*] };
}

pub(crate) fn numbers(violation: &Violation) -> Vec<(&'static str, Value)> {
    use Violation::*;
    match violation {
        HeaderLength { expected, received } => pairs!(expected, received),
        HeaderReserved { field, value } => pairs!(field, value),
        HeaderVersion { supported, received } => pairs!(supported, received),
        PayloadTooLarge { declared, limit } => pairs!(declared, limit),
        TooManyDescriptors { declared, limit } => pairs!(declared, limit),
        PayloadLength { declared, received } => pairs!(declared, received),
        PayloadTruncated { room, received } => pairs!(room, received),
        PayloadMissing { expected, received } => pairs!(expected, received),
        DescriptorCount { declared, received } => pairs!(declared, received),
        DescriptorUnexpected { received } => pairs!(received),
        ControlMalformed(malformed) => of_malformed(malformed),
        ControlUnknown { level, kind } => pairs!(level, kind),
        ControlTruncated { received } => pairs!(received),
        FrameOverrun { declared, remaining } => pairs!(declared, remaining),
        EmptyPacket { descriptors } => pairs!(descriptors),
        TooManyFrames { limit } => pairs!(limit),
        PacketTooLarge { received, limit } => pairs!(received, limit),
        Marker { expected, received } => pairs!(expected, received),
        Handshake { expected, bytes } => pairs!(expected, bytes),
        Status { bytes, zeros } => pairs!(bytes, zeros),
        DescriptorKind { slot, required, found } => vec![
            ("slot", json!(slot)),
            ("required", json!(required.to_string())),
            ("found", json!(found.to_string())),
        ],
        ReplyUnknown { correlation } => pairs!(correlation),
        ReplyCommand { expected, received } => pairs!(expected, received),
        ReplyDescriptors { allowed, received } => pairs!(allowed, received),
        BrokerMessage { field, value } => pairs!(field, value),
        WireRule { expected, received, .. } => pairs!(expected, received),
        // EmptyMessage and CallOverlap have none; rules to come are told by their text until they stand here.
        _ => Vec::new(),
    }
}

fn of_malformed(malformed: &Malformed) -> Vec<(&'static str, Value)> {
    use Malformed::*;
    match malformed {
        HeaderCut { remaining, header } => pairs!(remaining, header),
        LengthBelowHeader { length, header } => pairs!(length, header),
        LengthBeyondBuffer { length, remaining } => pairs!(length, remaining),
        ArrayLength { length, element } => pairs!(length, element),
        NegativeDescriptor { value } => pairs!(value),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_the_librarys() {
        let violation = Violation::DescriptorCount { declared: 1, received: 0 };
        assert_eq!(numbers(&violation), [("declared", json!(1)), ("received", json!(0))]);
        let malformed = Malformed::LengthBelowHeader { length: 3, header: 16 };
        let expected = [("length", json!(3)), ("header", json!(16))];
        assert_eq!(numbers(&Violation::ControlMalformed(malformed)), expected);
        assert_eq!(numbers(&Violation::EmptyMessage), []);
    }
}
