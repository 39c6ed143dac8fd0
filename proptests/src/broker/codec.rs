//! Requests and answers: what is accepted says exactly what it said (P1, P8).

use fdpost::Head;
use fdpost::broker::{ANSWER_MOST, Answer, REQUEST_MOST, Request};

use crate::reach::note;

/// A head from the first bytes, the rest as payload, read as either side reads it. What is accepted
/// is written again as the same bytes, so there is one way to say a thing.
pub fn check(bytes: &[u8]) {
    let Some((&[kind, flags, correlation, takes], payload)) = bytes.split_first_chunk() else { return };
    let head = Head {
        kind: (kind % 8).into(),
        correlation: correlation.into(),
        flags: (flags % 8).into(),
        reply_descriptors: takes,
    };
    match Request::decode(&head, payload) {
        Err(violation) => note(violation.rule()),
        Ok(request) => {
            let message = request.message::<()>(head.correlation, takes > 0);
            assert_eq!(message.payload(), payload);
            assert_eq!(*message.head(), Head { reply_descriptors: u8::from(takes > 0), ..head });
            assert!(payload.len() <= REQUEST_MOST as usize);
        }
    }
    let mut accepted = 0;
    for descriptors in [0, 1, 2, usize::MAX] {
        match Answer::decode(&head, payload, descriptors) {
            Err(violation) => note(violation.rule()),
            Ok(answer) => {
                accepted += 1;
                assert_eq!(descriptors, usize::from(answer.descriptors()));
                let message = answer.message::<()>(head.kind, head.correlation);
                assert_eq!(message.payload(), payload);
                assert_eq!(*message.head(), head);
                assert!(payload.len() <= ANSWER_MOST as usize);
            }
        }
    }
    assert!(accepted <= 1, "two numbers of descriptors for one answer");
}
