# What users of Cloudflare's Python library do, in its present form. Ends with 0 when all of it is so.
import os
from contextlib import contextmanager

from cloudflare import (
    AuthenticationError,
    BadRequestError,
    Cloudflare,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
)

client = Cloudflare()
account = os.environ["ACCOUNT"]
stores, secrets = client.secrets_store.stores, client.secrets_store.stores.secrets


@contextmanager
def refused(kind, status, code):
    try:
        yield
    except kind as error:
        assert error.status_code == status, error
        assert error.body["success"] is False and error.body["errors"][0]["code"] == code, error.body
    else:
        raise AssertionError(f"not refused with {status}")


store = stores.create(account_id=account, name="python")
assert store.name == "python" and len(store.id) == 32, store
assert stores.get(store.id, account_id=account) .created == store.created
assert [store.name for store in stores.list(account_id=account, per_page=1)].count("python") == 1
place = {"store_id": store.id, "account_id": account}

# More than two pages of the usual length, which the library turns by itself.
names = [f"KEY_{number:02}" for number in range(45)]
for start in range(0, 45, 15):
    body = [{"name": name, "value": f"of {name}", "scopes": ["workers", "ai_gateway"]} for name in names[start : start + 15]]
    body[0].update({"scopes": ["containers"], "comment": "the first of a batch"})
    made = list(secrets.create(**place, body=body))
    assert [secret.name for secret in made] == [item["name"] for item in body], made
    assert made[1].scopes == ["ai_gateway", "workers"] and made[1].store_id == store.id, made[1]
assert [secret.name for secret in secrets.list(**place, order="name")] == names
assert [secret.name for secret in secrets.list(**place, order="name", direction="desc", per_page=7)] == names[::-1]
assert [secret.name for secret in secrets.list(**place, search="KEY_07")] == ["KEY_07"]
assert len(list(secrets.list(**place, scopes=["containers"], per_page=2))) == 3
assert len(list(secrets.list(**place, search="first of a batch"))) == 3
# Past the end there is an empty page, not the last one again and no error.
assert secrets.list(**place, page=99).result == []

one = next(iter(secrets.list(**place, search="KEY_07")))
assert secrets.get(one.id, **place).name == "KEY_07"
assert secrets.edit(one.id, **place, comment="edited").comment == "edited"
assert secrets.edit(one.id, **place, value="another").comment == "edited"
assert secrets.edit(one.id, **place, scopes=["workers"]).scopes == ["workers"]
copy = secrets.duplicate(one.id, **place, name="COPY", scopes=["workers"], comment="copied")
assert (copy.name, copy.comment, copy.scopes) == ("COPY", "copied", ["workers"]), copy
assert client.secrets_store.quota.get(account_id=account).secrets.usage == 46

# A conflict is one; nothing of a batch is made unless all of it can be.
with refused(ConflictError, 409, 1003):
    secrets.create(**place, body=[{"name": "NEW", "value": "v", "scopes": ["workers"]}, {"name": "COPY", "value": "v", "scopes": ["workers"]}])
with refused(ConflictError, 409, 1003):
    secrets.create(**place, body=[{"name": "NEW", "value": "v", "scopes": ["workers"]}] * 2)
assert list(secrets.list(**place, search="NEW")) == []
with refused(BadRequestError, 400, 1001):
    secrets.create(**place, body=[{"name": "NEW", "value": "v" * 65_537, "scopes": ["workers"]}])
with refused(BadRequestError, 400, 1001):
    secrets.create(**place, body=[{"name": "NEW", "value": "v", "scopes": ["nowhere"]}])
with refused(NotFoundError, 404, 1001):
    secrets.get("0" * 32, **place)
with refused(NotFoundError, 404, 1001):
    stores.get("0" * 32, account_id=account)
with refused(NotFoundError, 404, 7003):
    stores.list(account_id="0" * 32)
with refused(AuthenticationError, 401, 10000):
    Cloudflare(api_token="nobody").secrets_store.stores.list(account_id=account)
viewer = Cloudflare(api_token=os.environ["VIEWER"])
assert viewer.secrets_store.stores.get(store.id, account_id=account).name == "python"
with refused(PermissionDeniedError, 403, 9109):
    viewer.secrets_store.stores.secrets.delete(copy.id, **place)

# The library sends no ids: that deletes nothing. With a body it deletes what is named.
with refused(BadRequestError, 400, 1001):
    secrets.bulk_delete(**place)
assert len(list(secrets.list(**place))) == 46
secrets.bulk_delete(**place, extra_body={"ids": [secret.id for secret in made]})
assert len(list(secrets.list(**place))) == 31
assert secrets.delete(copy.id, **place) is None
with refused(NotFoundError, 404, 1001):
    secrets.delete(copy.id, **place)
with refused(ConflictError, 409, 1003):
    stores.delete(store.id, account_id=account)
assert stores.delete(store.id, account_id=account, extra_query={"force": "true"}) is None
with refused(NotFoundError, 404, 1001):
    secrets.list(**place)
