//! A program that lives long follows its cluster from one certificate authority to the next.

use client::{Client, Config, Tls, Token};
use tests::process::{Fleet, Role, until};
use wire::v1;

use crate::ground::{configured, context};

async fn shown(fleet: &Fleet) -> serde_json::Value {
    fleet.cli.ok(&["--format", "json", "cluster", "ca", "show"]).await.json()
}

async fn called(client: &Client) -> Result<String, String> {
    client.who_am_i(v1::WhoAmIRequest {}).await.map(|who| who.name).map_err(|error| error.error.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_lives_long_goes_on_through_two_revocations_and_a_third_may_keep_the_authority() {
    let mut fleet = Fleet::start(3, 0).await;
    let (first, file) = (context(&fleet), fleet.folder().join("trust.pem"));
    let addresses: Vec<_> = fleet.names(Role::Control).iter().map(|name| configured(&fleet, name, "grpc")).collect();
    // Each as a program that starts with what was true at the beginning.
    let begun = || {
        let tls = Tls { ca_pem: first.ca.clone(), ..Tls::default() };
        Config::tls(addresses.clone(), tls).token(Token::new(first.token.clone()).unwrap())
    };
    let client = Client::new(begun().trust_file(&file)).unwrap();

    for (issuing, lost, new) in [(2, "control-1", "control-4"), (3, "control-2", "control-5")] {
        fleet.kill(lost);
        fleet.replace_voter(lost, new).await;
        fleet.cli.ok(&["node", "revoke", lost, "--yes"]).await;
        until("the next authority to be the only one, and the client to believe it", async || {
            called(&client).await.expect("no call fails meanwhile");
            let shown = shown(&fleet).await;
            let one = &shown["authorities"];
            let alone = one.as_array().unwrap().len() == 1 && one[0]["number"] == issuing;
            let followed = shown["version"] == client.trust_held();
            if alone && followed { Ok(()) } else { Err(format!("{} {shown}", client.trust_held())) }
        })
        .await;
    }
    // Who begins anew with the first authority is lost, but for the file that the other has kept.
    let lost = called(&Client::new(begun()).unwrap()).await.unwrap_err();
    assert!(lost.contains("certificate"), "{lost}");
    called(&Client::new(begun().trust_file(&file)).unwrap()).await.unwrap();

    // The third disk is known to be destroyed: nothing is replaced, and nobody has to follow.
    let before = shown(&fleet).await;
    fleet.kill("control-3");
    fleet.replace_voter("control-3", "control-6").await;
    let told = fleet.cli.ok(&["node", "revoke", "control-3", "--keep-authority", "--yes"]).await;
    assert!(told.stderr.contains("the certificate authority stays"), "{told:?}");
    let after = shown(&fleet).await;
    assert_eq!((&after["version"], &after["authorities"], &after["exposed"]), (&before["version"], &before["authorities"], &false.into()));
    let refused = fleet.cli.pipe(b"", &["node", "revoke", "control-3", "--yes"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("revoked already"), "{refused:?}");
    called(&client).await.unwrap();
}
