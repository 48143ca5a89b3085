// What users of Cloudflare's library for Node do. Ends with 0 when all of it is so.
import assert from "node:assert/strict";
import Cloudflare from "cloudflare";

const client = new Cloudflare();
const account_id = process.env.ACCOUNT;
const stores = client.secretsStore.stores;
const { secrets } = stores;

const refused = (promise, kind, status, code) =>
    assert.rejects(promise, (error) => {
        assert(error instanceof kind, error);
        assert.equal(error.status, status);
        assert.equal(error.errors[0].code, code);
        return true;
    });
const all = async (pages) => {
    const found = [];
    for await (const item of pages) found.push(item);
    return found;
};

const store = await stores.create({ account_id, name: "node" });
assert.equal(store.name, "node");
const place = { account_id, store_id: store.id };
assert.equal((await stores.get(store.id, { account_id })).id, store.id);
assert((await all(stores.list({ account_id, per_page: 1 }))).some(({ id }) => id === store.id));

const names = Array.from({ length: 25 }, (_, number) => `KEY_${String(number).padStart(2, "0")}`);
const body = names.map((name) => ({ name, value: `of ${name}`, scopes: ["workers", "ai_gateway"] }));
const made = await all(secrets.create(store.id, { account_id, body }));
assert.deepEqual(made.map(({ name }) => name), names);
assert.deepEqual(made[0].scopes, ["ai_gateway", "workers"]);
const names_of = async (query) => (await all(secrets.list(store.id, { account_id, ...query }))).map(({ name }) => name);
assert.deepEqual(await names_of({ order: "name" }), names);
assert.deepEqual(await names_of({ order: "name", direction: "desc", per_page: 4 }), names.toReversed());
assert.deepEqual(await names_of({ search: "KEY_07", scopes: ["workers", "dex"] }), ["KEY_07"]);
assert.deepEqual(await names_of({ scopes: ["dex"] }), []);

const { id } = made[7];
assert.equal((await secrets.get(id, place)).name, "KEY_07");
assert.equal((await secrets.edit(id, { ...place, comment: "edited" })).comment, "edited");
assert.equal((await secrets.edit(id, { ...place, value: "another" })).comment, "edited");
const copy = await secrets.duplicate(id, { ...place, name: "COPY", scopes: ["workers"] });
assert.equal(copy.name, "COPY");
assert.equal((await client.secretsStore.quota.get({ account_id })).secrets.usage, 26);

const twice = [{ name: "COPY", value: "v", scopes: ["workers"] }];
await refused(all(secrets.create(store.id, { account_id, body: twice })), Cloudflare.ConflictError, 409, 1003);
await refused(secrets.get("0".repeat(32), place), Cloudflare.NotFoundError, 404, 1001);
await refused(all(stores.list({ account_id: "0".repeat(32) })), Cloudflare.NotFoundError, 404, 7003);
const nobody = new Cloudflare({ apiToken: "nobody" });
await refused(all(nobody.secretsStore.stores.list({ account_id })), Cloudflare.AuthenticationError, 401, 10000);
const viewer = new Cloudflare({ apiToken: process.env.VIEWER });
await refused(viewer.secretsStore.stores.secrets.delete(id, place), Cloudflare.PermissionDeniedError, 403, 9109);

// The library sends no ids: that deletes nothing. With a body it deletes what is named.
await refused(secrets.bulkDelete(store.id, { account_id }), Cloudflare.BadRequestError, 400, 1001);
assert.equal((await names_of({})).length, 26);
await secrets.bulkDelete(store.id, { account_id }, { body: { ids: made.slice(0, 20).map(({ id }) => id) } });
assert.equal((await names_of({})).length, 6);
assert.equal(await secrets.delete(copy.id, place), null);
await refused(secrets.get(copy.id, place), Cloudflare.NotFoundError, 404, 1001);
await refused(stores.delete(store.id, { account_id }), Cloudflare.ConflictError, 409, 1003);
assert.equal(await stores.delete(store.id, { account_id }, { query: { force: true } }), null);
