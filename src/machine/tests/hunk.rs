use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::machine::{Hunk, SLACK};
use crate::wire::control::Credentials;

#[test] // P2
fn what_was_put_into_a_hunk_is_what_it_says() {
    let mut hunk = Hunk::<i32>::with_room(4, 1).unwrap();
    assert!(hunk.is_void() && !hunk.is_end() && !hunk.is_control_cut());
    assert_eq!((hunk.room(), hunk.descriptor_room(), hunk.head_room()), (4, 1, 0));
    assert_eq!((hunk.length(), hunk.credentials()), (0, None));
    let credentials = Credentials { pid: 7, uid: 8, gid: 9 };
    hunk.set_credentials(credentials);
    hunk.set_end();
    hunk.fill(b"seven ", [3]);
    assert_eq!((hunk.stored_bytes(), hunk.length(), hunk.descriptors()), (&b"seve"[..], 6, &[3][..]));
    assert_eq!(hunk.credentials(), Some(credentials));
    assert!(hunk.is_end() && !hunk.is_void() && !hunk.is_control_cut());
    assert_eq!(hunk.take_descriptors().collect::<Vec<_>>(), [3]);
    hunk.set_length(9);
    assert_eq!(hunk.length(), 9);
}

#[test] // P2: a void read is the end only where nothing at all came
fn any_one_thing_makes_a_read_more_than_void() {
    let fresh = || Hunk::<i32>::with_room(4, 1).unwrap();
    let things: [fn(&mut Hunk<i32>); 3] =
        [|hunk| hunk.set_length(1), |hunk| hunk.adopt(1), Hunk::set_control_cut];
    for thing in things {
        let mut hunk = fresh();
        thing(&mut hunk);
        assert!(!hunk.is_void());
    }
    assert!(fresh().is_void());
}

#[test] // P2
fn a_simulated_read_keeps_as_many_descriptors_as_were_offered() {
    let token = Rc::new(());
    let mut hunk = Hunk::with_room(1, 2).unwrap();
    hunk.fill(b"x", [token.clone(), token.clone()]);
    assert_eq!((hunk.descriptors().len(), hunk.is_control_cut()), (2, false));
    hunk.fill(b"", [token.clone()]);
    assert_eq!((hunk.descriptors().len(), hunk.is_control_cut()), (2, true));
    drop(hunk);
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test] // P2, P4
fn a_descriptor_without_a_place_is_closed_at_once_and_nothing_grows() {
    let token = Rc::new(());
    let mut hunk = Hunk::with_room(1, 2).unwrap();
    for _ in 0..2 + SLACK {
        hunk.adopt(token.clone());
        assert!(!hunk.is_control_cut());
    }
    hunk.adopt(token.clone());
    assert_eq!((hunk.descriptors().len(), hunk.is_control_cut()), (2 + SLACK, true));
    assert_eq!(Rc::strong_count(&token), 1 + 2 + SLACK);
}
