//! Claim, login, sessions.
use super::*;
use dayzero_store::Options;

const NOW: Timestamp = Timestamp(1_000_000);

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn users(dir: &std::path::Path) -> Users {
    Users::new(&Store::open(dir, Options::default()).unwrap())
}

#[tokio::test]
async fn the_claim_code_works_once_and_makes_the_admin() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path());
    let lost = users.first_claim(NOW).await.unwrap().unwrap();
    let code = users.first_claim(NOW).await.unwrap().unwrap();
    assert_eq!(code.expose().len(), 24);
    let password = secret("correct horse battery");
    let late = users.claim(&lost, &password, "b", NOW).await;
    assert!(matches!(late, Err(LoginError::WrongCode)), "the next start's code takes its place");
    let claimed = tokio::spawn({
        let users = users.clone();
        async move { users.until_claimed().await }
    });
    assert!(matches!(users.claim(&code, &secret("short"), "a", NOW).await, Err(LoginError::BadPassword)));
    let wrong = users.claim(&secret("AAAA-AAAA"), &password, "a", NOW).await;
    assert!(matches!(wrong, Err(LoginError::WrongCode)));
    let typed = secret(&code.expose().to_lowercase().replace('-', " "));
    let login = users.claim(&typed, &password, "a", NOW).await.unwrap();
    assert_eq!(login.session.role, Role::Admin);
    assert!(matches!(users.claim(&code, &password, "a", NOW).await, Err(LoginError::WrongCode)), "spent");
    assert!(users.first_claim(NOW).await.unwrap().is_none());
    claimed.await.unwrap().unwrap();
    let again = users.login("admin", &password, "a", NOW).await.unwrap();
    assert_ne!(again.id, login.id);
    // Neither code nor password nor session id is in the store.
    let mut export = Vec::new();
    users.store.export(&mut export).unwrap();
    let text = String::from_utf8(zstd::decode_all(&export[..]).unwrap()).unwrap();
    for hidden in [code.expose(), normal(&code).expose(), password.expose(), login.id.expose()] {
        assert!(!text.contains(hidden.as_str()));
    }
}

#[tokio::test]
async fn a_session_ends_by_time_by_logout_and_with_a_new_password() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path());
    let (name, password) = ("erin".parse().unwrap(), secret("a long enough one"));
    users.set_user(&name, Role::Operator, &password, NOW).await.unwrap();
    let login = async || users.login("erin", &password, "a", NOW).await.unwrap();
    let first = login().await;
    let session = users.session(first.id.expose(), NOW).unwrap().unwrap();
    assert_eq!(session, first.session);
    assert!(
        session.role.may(Role::Viewer) && session.role.may(Role::Operator) && !session.role.may(Role::Admin)
    );
    assert!(users.session(first.id.expose(), NOW.plus(SESSION_TTL)).unwrap().is_none());
    assert!(
        users.session("", NOW).unwrap().is_none() && users.session(&"0".repeat(64), NOW).unwrap().is_none()
    );
    users.logout(first.id.expose()).await.unwrap();
    assert!(users.session(first.id.expose(), NOW).unwrap().is_none());
    let second = login().await;
    users.set_user(&name, Role::Viewer, &secret("another long one"), NOW).await.unwrap();
    assert!(users.session(second.id.expose(), NOW).unwrap().is_none());
    assert!(users.login("erin", &password, "a", NOW).await.is_err());
    users.remove_user(&name).await.unwrap();
    assert!(users.login("erin", &secret("another long one"), "a", NOW).await.is_err());
    assert!(users.users().unwrap().is_empty());
}

#[tokio::test]
async fn guessing_is_slowed_down_for_known_and_unknown_users_alike() {
    let dir = tempfile::tempdir().unwrap();
    let users = users(dir.path());
    let password = secret("a long enough one");
    users.set_user(&"erin".parse().unwrap(), Role::Viewer, &password, NOW).await.unwrap();
    for user in ["erin", "nobody", "NOT A NAME"] {
        for _ in 0..5 {
            let wrong = users.login(user, &secret("guess"), user, NOW).await.unwrap_err();
            assert!(matches!(wrong, LoginError::Wrong), "{wrong}");
        }
        let paused = users.login(user, &password, user, NOW).await.unwrap_err();
        assert!(matches!(paused, LoginError::Throttled { seconds: 2 }), "{paused}");
    }
    assert!(users.login("erin", &password, "elsewhere", NOW).await.is_ok());
    assert!(users.login("erin", &password, "erin", NOW.plus(Millis(2000))).await.is_ok());
}
