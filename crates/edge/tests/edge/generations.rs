use seams::sim::SimEntropy;

use crate::{
    plane::{Plane, recovery_key},
    serve::{PATIENCE, get, read, until, until_status},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_serves_on_until_a_recovered_control_plane_shows_the_statement_and_then_follows_it() {
    let mut plane = Plane::start().await;
    let edge = plane.edge().await;
    plane.write("GREETING", "of yesterday");
    plane.bind("API_KEY", "GREETING");
    let yesterday = plane.copy();
    let position = plane.write("GREETING", "of today");
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"of today");
    plane.stop().await;

    // Somebody with the snapshot, but without the recovery key.
    plane.recover(&yesterday, &feed::SigningKey::generate(&SimEntropy::new(66)));
    plane.serve().await;
    plane.tick();
    let refused = |problem: &String| problem.contains("not signed by the recovery key");
    until_status(&edge, |status| status.problems.iter().any(refused)).await;
    let found = read(&edge, get(&plane, "API_KEY", None, None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.position), (&b"of today"[..], Some(position.into())), "what it has stays in service");
    plane.stop().await;

    let begun = plane.recover(&yesterday, &recovery_key());
    plane.serve().await;
    plane.tick();
    let found = read(&edge, get(&plane, "API_KEY", Some(begun), None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.position), (&b"of yesterday"[..], Some(begun.into())));
    let position = plane.write("GREETING", "of tomorrow");
    plane.tick();
    assert_eq!(read(&edge, get(&plane, "API_KEY", Some(position), None)).await.unwrap().value, b"of tomorrow");
    until(&edge, "/readyz", "HTTP/1.1 200").await;
    edge.shutdown(PATIENCE).await.unwrap();

    // And from its own disk, alone.
    plane.stop().await;
    let edge = plane.edge().await;
    let found = read(&edge, get(&plane, "API_KEY", None, None)).await.unwrap();
    assert_eq!((found.value.as_slice(), found.position), (&b"of tomorrow"[..], Some(position.into())));
    edge.shutdown(PATIENCE).await.unwrap();
}
