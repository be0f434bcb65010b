use super::*;
use crate::{Known, load_str};

fn defaults(text: &str) -> String {
    write(&BTreeMap::from([("hosts".to_owned(), text.to_owned())]), None).unwrap()
}

#[test]
fn eight_questions() {
    assert_eq!(questions().count(), 8);
}

#[test]
fn the_first_plan_of_two_hosts() {
    insta::assert_snapshot!(defaults("2"));
}

#[test]
fn only_placeholders_are_left_to_fill_in() {
    for hosts in ["1", "2", "15"] {
        let plan = defaults(hosts);
        let found = load_str("site.yaml", &plan, &Known::default()).unwrap_err();
        assert!(found.list().iter().all(|one| one.code == "DZ018"), "{found}");
        let filled = plan
            .replace("CHANGE-ME", "S")
            .replace("02:00:00:00", "52:54:00:00")
            .replace("0x6000000000000000", "0x6000000000000001");
        load_str("site.yaml", &filled, &Known::default()).unwrap_or_else(|found| panic!("{found}"));
    }
}

#[test]
fn a_list_of_hosts_fills_in_what_it_knows() {
    let csv = "rack,u,serial,bmc_mac,model,cluster,nics,address\n\
               r7,3,\"S \"\"1\"\"\",52:54:00:77:09:01,R650,web,525400770101 525400770102 525400770103 525400770104,10.77.0.12\n\
               r7,5,S2,52:54:00:77:09:02,R650,web,,\n\
               r8,1,S3,52:54:00:77:09:03,R750,db,,\n";
    let hosts = crate::hosts_csv::read("hosts.csv", csv.as_bytes()).unwrap();
    let plan = write(&BTreeMap::new(), Some(&hosts)).unwrap();
    let found = load_str("site.yaml", &plan, &Known::default()).unwrap_err();
    assert!(found.list().iter().all(|one| one.code == "DZ018"), "{found}");
    for expected in [
        "S \\\"1\\\"",
        "10.77.0.12",
        "52:54:00:77:01:04",
        "name: web",
        "name: db",
        "failover: none",
        "\"R650\"",
    ] {
        assert!(plan.contains(expected), "{expected} is missing in\n{plan}");
    }
}

#[test]
fn bad_answers_name_the_question() {
    for (id, answer) in [
        ("name", "My Site"),
        ("domain", "bad domain"),
        ("management", "10.77.0.0"),
        ("management", "10.77.0.0/30"),
        ("bmc", "10.77.0.0/16"),
        ("storage", "10.77.11.0/24"),
        ("guest", "10.77.100.0/24 5000"),
        ("hypervisor", "hyper-v"),
        ("hosts", "none"),
    ] {
        let error = write(&BTreeMap::from([(id.to_owned(), answer.to_owned())]), None).unwrap_err();
        assert_eq!(error.id, id, "{error}");
    }
    let error = write(&BTreeMap::from([("hosts".to_owned(), "300".to_owned())]), None).unwrap_err();
    assert!(error.problem.contains("no address left"), "{error}");
}
