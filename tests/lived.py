"""A store on DynamoDB that has been lived in: something of everything that it can hold."""

from tests.backends import gather_group, key, private, sign_up, to_group
from tidings.model import Group, User, mint
from tidings.store.dynamodb import DynamoStore


async def live(store: DynamoStore) -> tuple[str, str, str, str]:
    """Make items of every kind: a block, one taken back, stays, one ended, keys, copies, a message to oneself."""
    ann, bob, carol = [await sign_up(store, name) for name in ("ann", "bob", "carol")]
    group = await gather_group(store, ann, bob, carol)
    await store.create_user(User(mint("user"), "eve"), key(f"{ann} eve"))
    await store.create_group(Group(mint("group"), "hikers"), key(f"{ann} hikers"))
    await store.block(ann, carol, key(f"{ann} block"))
    await store.block(bob, carol)
    await store.unblock(bob, carol)
    for n in range(4):
        await store.send(private(ann, bob, f"{n}"), key(f"{ann} {n}") if n % 2 else None)
        await store.send(to_group(bob, group, f"{n}"), key(f"{bob} {n}") if n % 2 else None)
    await store.remove_member(group, carol)
    for _ in range(2):
        await store.send(private(ann, ann))
    await store.raise_floor(4_000_000_000_000)
    return ann, bob, carol, group
