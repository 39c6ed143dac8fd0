//! A few of the cases of `make faults`, which plays them all: that its scenarios still run, and hold.

use std::process::Command;

#[test] // P1, P2, P4, P5, P6; cases 43, 46
fn some_calls_fail() {
    let test = std::env::current_exe().unwrap();
    let faults = test.parent().unwrap().with_file_name("examples").join("faults");
    if !faults.exists() {
        println!("skipped: {} is not built (cargo test without --test builds it)", faults.display());
        return;
    }
    for chosen in
        ["calls called recvmsg", "packet right statx", "send_fd giver sendmsg", "broker client allocation"]
    {
        let output = Command::new(&faults).args(chosen.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{chosen}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let skipped = said.starts_with("skipped: ");
        assert!(skipped || said.contains(" cases over 1 scenarios, 0 failed"), "{chosen}: {said}");
    }
}
