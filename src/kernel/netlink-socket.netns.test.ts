import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { NLM_F_DUMP_INTR, NlWriter } from '../wire/netlink.ts';
import { RTM_NEWLINK } from '../wire/rtnetlink/constants.ts';
import {
  decodeLinkName,
  encodeLinkCreate,
  encodeLinkDelete,
  encodeLinkDump,
  encodeLinkGet,
} from '../wire/rtnetlink/link.ts';
import { libc } from './ffi.ts';
import { isOwnPort, NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.ts';
import { withNetns } from './netns.ts';
import { openDescriptors, ScratchNamespaces } from './testing/scratch.ts';

const scratch = new ScratchNamespaces('socket');
after(() => scratch.remove());

const ns = scratch.create();
const open = (): NetlinkSocket => withNetns(ns, () => new NetlinkSocket(NETLINK_ROUTE));
const indexOf = (): number => 0;
const bridge = (name: string): Uint8Array =>
  encodeLinkCreate({ kind: 'link', name, type: 'bridge' }, { indexOf });
const names = (payloads: Uint8Array[]): Array<string | undefined> =>
  payloads.map((p) => decodeLinkName(p)?.name);

/** Stand between the socket and the kernel: `change` sees what was received, before the socket does. */
function intercept(change: (data: Uint8Array, length: number) => number, fn: () => void): void {
  const table = libc as { recvfrom: typeof libc.recvfrom };
  const real = table.recvfrom;
  table.recvfrom = (fd, data, size, flags, from, fromLength) => {
    const n = real(fd, data, size, flags, from, fromLength);
    return n > 0 ? change(data as Uint8Array, n) : n;
  };
  try {
    fn();
  } finally {
    table.recvfrom = real;
  }
}

/** Set NLM_F_DUMP_INTR in the first message received, as the kernel does when a table changes under a dump. */
const interrupt = (data: Uint8Array): void => {
  data[6] = data[6]! | NLM_F_DUMP_INTR;
};

test('a batch: each message has its own answer, those after a refusal are done', () => {
  using socket = open();
  const replies = socket.request([
    bridge('b1'),
    bridge('b1'),
    encodeLinkGet({ name: 'b1' }),
    bridge('b2'),
    encodeLinkDelete({ name: 'nobody' }),
  ]);
  assert.deepEqual(
    replies.map((r) => r.failure?.errno),
    [undefined, 17, undefined, undefined, 19],
  );
  assert.deepEqual(names(replies[2]!.messages.map((m) => m.payload)), ['b1']);
  assert.deepEqual(names(socket.dump(encodeLinkDump())), ['lo', 'b1', 'b2']);
  assert.deepEqual(socket.request([]), []);
});

test('a refusal explains itself', () => {
  using socket = open();
  const [reply] = socket.request([bridge('a name that is too long')]);
  assert.equal(reply?.failure?.errno, 34);
  assert.match(reply?.failure?.message ?? '', /failed policy validation/);
  assert.equal(reply?.failure?.offset, 32);
});

test('an interrupted dump is done again; one that never settles is refused', () => {
  using socket = open();
  const whole = names(socket.dump(encodeLinkDump()));
  let interruptions = 3;
  intercept(
    (data, n) => {
      if (interruptions-- > 0) interrupt(data);
      return n;
    },
    () => assert.deepEqual(names(socket.dump(encodeLinkDump())), whole),
  );
  assert.ok(interruptions < 0);
  intercept(
    (data, n) => {
      interrupt(data);
      return n;
    },
    () => {
      assert.throws(() => socket.dump(encodeLinkDump()), {
        code: 'WEFT_NETLINK_REFUSED',
        message: /interrupted 20 times/,
      });
    },
  );
  assert.deepEqual(names(socket.dump(encodeLinkDump())), whole);
});

test('answers of an earlier exchange, and bytes that are no messages', () => {
  using socket = open();
  socket.send(new NlWriter(RTM_NEWLINK, 5).raw(new Uint8Array(16)).finish()); // REQUEST|ACK, answer not fetched
  assert.deepEqual(
    names(socket.request([encodeLinkGet({ name: 'lo' })])[0]!.messages.map((m) => m.payload)),
    ['lo'],
  );
  intercept(
    (data, n) => {
      data.fill(0xff, 0, 4); // a length beyond the datagram
      return n;
    },
    () => assert.throws(() => socket.dump(encodeLinkDump()), { code: 'WEFT_NETLINK_MALFORMED' }),
  );
  assert.ok(names(socket.dump(encodeLinkDump())).includes('lo'));
  intercept(
    () => 3,
    () =>
      assert.throws(() => socket.request([encodeLinkGet({ name: 'lo' })]), {
        code: 'WEFT_NETLINK_MALFORMED',
      }),
  );
});

test('a large batch finds room', () => {
  using socket = open();
  const alias = new Uint8Array(200);
  const messages = Array.from({ length: 1000 }, () =>
    new NlWriter(RTM_NEWLINK, 0).raw(new Uint8Array(16)).attrString(3, 'nobody').attr(99, alias).finish(),
  );
  const replies = socket.request(messages);
  assert.equal(replies.filter((r) => r.failure).length, 1000);
});

test('port ids tell our sockets from all others, and are never shared', () => {
  const before = openDescriptors();
  const sockets = Array.from({ length: 100 }, open);
  assert.equal(new Set(sockets.map((s) => s.portId)).size, 100);
  assert.ok(sockets.every((s) => isOwnPort(s.portId)));
  assert.ok(!isOwnPort(process.pid) && !isOwnPort(0) && !isOwnPort(sockets[0]!.portId ^ 0x200));
  for (const socket of sockets) socket.close();
  for (const socket of sockets) socket.close(); // twice is once
  assert.equal(openDescriptors(), before);
});
