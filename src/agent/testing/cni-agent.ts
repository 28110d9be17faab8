/**
 * Attachments behind a CNI socket as a process of its own, in the namespace it is started in: what tests kill, and what
 * container runtimes speak to. Usage: cni-agent.ts FOLDER [cooldown seconds] [IPv4 pod CIDR] [IPv6 pod CIDR]
 *
 * Prints one JSON object per line: {ready}, {drift}. SIGTERM ends it in order.
 */
import path from 'node:path';
import { systemClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import { attachedMarker, CniServer } from '../../cni/server.ts';
import { Spool } from '../../cni/spool.ts';
import { openKernel } from '../../kernel/kernel.ts';
import { SqliteAttachmentStore } from '../../store/attachment-store.ts';
import { Attachments } from '../attachments.ts';

const [folder = '.', cooldown = '0', ...podCIDRs] = process.argv.slice(2);
const logger = createLogger('cni-agent', process.env.WEFT_LOG_LEVEL ?? 'error');
const say = (value: object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);

const kernel = await openKernel();
const store = new SqliteAttachmentStore(path.join(folder, 'attachments.db'));
const socket = path.join(folder, 'cni.sock');
const attachments = new Attachments({
  kernel,
  store,
  spool: new Spool(path.join(folder, 'spool'), logger),
  clock: systemClock,
  logger,
  cooldownSeconds: Number(cooldown),
  marker: attachedMarker(socket),
  onDrift: ({ attachment, differences, by }) =>
    say({ drift: differences.map((d) => d.text), id: attachment.id, by }),
});
const watch = await kernel.watch('', { kinds: ['link', 'route', 'neighbour'], foreignOnly: true }, (events) =>
  attachments.handleKernelEvents(events),
);
await attachments.start();
attachments.configure({
  podCIDRs: podCIDRs.length > 0 ? podCIDRs : ['10.88.0.0/16', 'fd88::/64'],
  clusterCIDRs: ['10.88.0.0/14', 'fd88::/48'],
  mtu: 1450,
});
const server = new CniServer({ path: socket, backend: attachments, logger });
await server.listen();
say({ ready: process.pid, attachments: attachments.table.size });

process.once('SIGTERM', async () => {
  await server.close();
  await watch.close();
  await attachments.close();
  store.close();
  await kernel[Symbol.asyncDispose]();
});
