import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { type HandMade, makeByHand } from './hand-made.ts';
import { netnsName, Scope } from './scope.ts';

const cases = [
  { fabric: 'vxlan', podMtu: 1450, masquerade: true },
  { fabric: 'host-gw', podMtu: 1500, masquerade: false },
] as const;

for (const { fabric, podMtu, masquerade } of cases) {
  test(`${fabric}: pods reach each other with full packets, and nothing is left`, async () => {
    {
      await using scope = new Scope();
      const made = await makeByHand(scope, { label: 't', fabric, podMtu, masquerade });
      const from = made.pod(1, 1);
      for (const to of [made.pod(1, 2), made.pod(2, 1), made.pod(2, 2)]) {
        await scope.run(ping(from.netns, to.address, podMtu));
      }
      const large = ping(from.netns, made.pod(2, 1).address, podMtu + 1);
      await assert.rejects(scope.run(large), /message too long/);
      await assertUntranslated(scope, made);
    }
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith(netnsName(''))),
      [],
    );
  });
}

/** One packet of exactly this size (bytes, IP header included), not to be fragmented. */
function ping(netns: string, to: string, size: number): string[] {
  return ['nsenter', `--net=${netns}`, 'ping', '-c1', '-W1', '-Mdo', '-s', String(size - 28), to];
}

/** Masquerading is for what leaves the cluster: between nodes a pod is seen by its own address. */
async function assertUntranslated(scope: Scope, made: HandMade): Promise<void> {
  const [client, server] = [made.pod(1, 1), made.pod(2, 1)];
  const listener = scope.run(['nsenter', `--net=${server.netns}`, 'bash', '-c', seen], { timeout: 10_000 });
  await scope.until('the listener', 5000, async () => {
    const { stdout } = await scope.run(['nsenter', `--net=${server.netns}`, 'ss', '-Hlun']);
    return stdout.includes(':7100 ') ? true : undefined;
  });
  await scope.run([
    'nsenter',
    `--net=${client.netns}`,
    'bash',
    '-c',
    `echo hi >/dev/udp/${server.address}/7100`,
  ]);
  assert.equal((await listener).stdout.trim(), client.address);
}

/** Prints where one datagram came from. */
const seen = `exec ${process.execPath} -e '
  const socket = require("node:dgram").createSocket("udp4");
  socket.on("message", (_, from) => { console.log(from.address); socket.close(); });
  socket.bind(7100);'`;
