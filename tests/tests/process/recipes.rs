//! The recipes for CI systems in `deploy/ci`, as somebody tries them: against `dev`.

use std::path::Path;

use tests::clients::Pipeline;

use crate::first_minutes::Dev;

async fn tried(recipe: impl AsyncFnOnce(Pipeline<'_>, &Path)) {
    let dev = Dev::new();
    let _server = dev.serve().await;
    let cli = dev.cli();
    let (_, context) = cli::Contexts::load(Path::new(&dev.path("contexts.toml"))).unwrap().contexts.pop_first().unwrap();
    let pipeline = Pipeline::new(&cli, (&context.control, &context.ca), &context.account.unwrap(), &[]).await;
    recipe(pipeline, Path::new(&dev.path("project"))).await;
}

#[tokio::test]
async fn recipe_of_github_writes_secrets_and_writes_them_again() {
    tried(async |pipeline, folder| pipeline.github(folder).await).await;
}

#[tokio::test]
async fn recipe_of_gitlab_writes_secrets_and_writes_them_again() {
    tried(async |pipeline, folder| pipeline.gitlab(folder).await).await;
}
