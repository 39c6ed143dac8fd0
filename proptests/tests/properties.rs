//! The properties: each calls one oracle. `PROPTEST_CASES` says how often.

use fdpost_proptests::log::Wire;
use fdpost_proptests::script::Script;
use fdpost_proptests::strategy::{brokered, config, controls, plans, scripts};
use fdpost_proptests::{broker, control, oracle, send_fd, sender};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(config(512))]

    #[test] // P1, P2, P3, P4, P5, P8
    fn libcamera_is_heard_as_the_model_says(script in scripts(Wire::Libcamera)) {
        oracle::check(&script);
    }

    #[test] // P1, P2, P3, P4, P5, P8
    fn packet_is_heard_as_the_model_says(script in scripts(Wire::Packet)) {
        oracle::check(&script);
    }

    #[test] // P1, P2, P3, P4, P5, P8
    fn stream_is_heard_as_the_model_says(script in scripts(Wire::Stream)) {
        oracle::check(&script);
    }

    #[test] // P1, P2, P3, P4, P5, P8
    fn vhost_user_is_heard_as_the_model_says(script in scripts(Wire::VhostUser)) {
        oracle::check(&script);
    }

    #[test] // P1, P2, P6
    fn libcamera_is_sent_whole_or_not_at_all(plan in plans(Wire::Libcamera)) {
        sender::check(&plan);
    }

    #[test] // P1, P2, P6
    fn packet_is_sent_whole_or_not_at_all(plan in plans(Wire::Packet)) {
        sender::check(&plan);
    }

    #[test] // P1, P2, P6
    fn stream_is_sent_whole_or_not_at_all(plan in plans(Wire::Stream)) {
        sender::check(&plan);
    }

    #[test] // P1, P2, P6
    fn vhost_user_is_sent_whole_or_not_at_all(plan in plans(Wire::VhostUser)) {
        sender::check(&plan);
    }

    #[test] // P2, P8
    fn control_messages_are_decoded_as_encoded(plan in controls()) {
        control::check_plan(&plan);
    }

    #[test] // P2, P8
    fn any_bytes_are_control_data(bytes in vec(prop_oneof![0..24_u8, any::<u8>()], 0..200)) {
        control::check_bytes(&bytes);
    }

    #[test] // P2, P8
    fn any_bytes_are_a_conversation(bytes in vec(any::<u8>(), 0..400)) {
        oracle::check_bytes(&bytes);
        sender::check_bytes(&bytes);
    }

    #[test] // P1, P4, P8
    fn the_two_bytes_are_read_as_the_model_says(
        bytes in vec(prop_oneof![3 => Just(0_u8), 5 => 1..=255_u8], 0..40),
        limit in prop_oneof![0..40_usize, Just(usize::MAX)],
    ) {
        send_fd::check(&bytes, limit);
    }

    #[test] // P1, P2, P4, P8
    fn a_broker_does_as_the_model_says(script in brokered()) {
        broker::check(&script);
    }

    #[test] // P1, P8
    fn any_bytes_are_said_to_a_broker(bytes in vec(prop_oneof![0..8_u8, any::<u8>()], 0..120)) {
        broker::check_bytes(&bytes);
    }

    #[test]
    fn a_script_survives_as_bytes(script in scripts(Wire::Packet)) {
        prop_assert_eq!(Script::from_bytes(&script.to_bytes()), script);
    }
}
