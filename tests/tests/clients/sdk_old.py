# What users of Cloudflare's Python library of 2025 do: bodies and results are lists where today's are objects.
import os

from cloudflare import BadRequestError, Cloudflare, NotFoundError

client = Cloudflare()
account = os.environ["ACCOUNT"]
stores, secrets = client.secrets_store.stores, client.secrets_store.stores.secrets

[store] = stores.create(account_id=account, body=[{"name": "old"}])
assert store.name == "old" and len(store.id) == 32, store
assert "old" in [store.name for store in stores.list(account_id=account)]
place = {"store_id": store.id, "account_id": account}
names = ["A", "B", "C"]
made = list(secrets.create(**place, body=[{"name": name, "value": name, "scopes": ["workers"]} for name in names]))
assert [secret.name for secret in made] == names
assert [secret.name for secret in secrets.list(**place, order="name", per_page=1)] == names
# This generation names the secret when it edits it.
assert secrets.edit(made[0].id, **place, name="A", value="other").name == "A"
assert secrets.edit(made[0].id, **place, name="A", scopes=["workers", "dex"]).scopes == ["dex", "workers"]
# Nor does it name scopes for a copy, which then has those of its source.
assert secrets.duplicate(made[0].id, **place, name="D").scopes == ["dex", "workers"]
assert client.secrets_store.quota.get(account_id=account).secrets.usage == 4
try:
    secrets.bulk_delete(**place)
    raise AssertionError("deleted without ids")
except BadRequestError:
    pass
secrets.bulk_delete(**place, extra_body=[{"id": made[1].id}, {"id": made[2].id}])
assert [secret.name for secret in secrets.list(**place, order="name")] == ["A", "D"]
secrets.delete(made[0].id, **place)
try:
    secrets.get(made[0].id, **place)
    raise AssertionError("it is still there")
except NotFoundError:
    pass
stores.delete(store.id, account_id=account, extra_query={"force": "true"})
