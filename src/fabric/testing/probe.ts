/**
 * The program that the compliance suite runs at every end point: an echo server that tells each client the address it is
 * seen with, and a client that does as it is told. One JSON command per line in, one JSON answer per line out.
 *
 *   node probe.ts [port]
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import net from 'node:net';
import { createInterface } from 'node:readline';
import type { Answer, Command, Flow } from '../compliance.ts';

const port = Number(process.argv[2] ?? 7007);
const TIMEOUT_MS = 3000;
/** Datagrams with this prefix are remembered rather than answered. */
const NOTE = 'note:';
const heard: string[] = [];
const flows = new Map<
  string,
  { socket: dgram.Socket; timer: NodeJS.Timeout; sent: number; back: Set<number> }
>();

const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:(?=\d+\.)/, '');

// TCP: one line with the client's address, then everything it sends, back.
const tcpServer = net.createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.write(`${plain(socket.remoteAddress)}\n`);
  socket.pipe(socket);
});

/** UDP: the client's address and what it sent. */
function udpServer(type: 'udp4' | 'udp6'): Promise<void> {
  const socket = dgram.createSocket({ type, ipv6Only: type === 'udp6' });
  socket.on('error', () => {});
  socket.on('message', (message, from) => {
    const text = message.subarray(0, 200).toString('latin1');
    if (text.startsWith(NOTE)) heard.push(text);
    else socket.send(`${from.address} ${text}`, from.port, from.address);
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, resolve);
  });
}

function tcp(to: string, bytes: number): Promise<string> {
  const sent = randomBytes(bytes);
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: to, port, noDelay: true });
    const timer = setTimeout(() => fail(new Error('no answer')), TIMEOUT_MS + bytes / 1000);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(new Error(`TCP to ${to}: ${error.message}`));
    };
    const hash = createHash('sha256');
    let greeting = '';
    let greeted = false;
    let received = 0;
    socket.on('error', fail);
    socket.on('connect', () => socket.write(sent));
    socket.on('data', (chunk: Buffer) => {
      let data = chunk;
      if (!greeted) {
        const end = data.indexOf(10);
        greeting += data.subarray(0, end < 0 ? data.length : end).toString();
        if (end < 0) return;
        greeted = true;
        data = data.subarray(end + 1);
      }
      hash.update(data);
      received += data.length;
      if (received < bytes) return;
      clearTimeout(timer);
      socket.destroy();
      const intact = hash.digest('hex') === createHash('sha256').update(sent).digest('hex');
      if (intact) resolve(greeting);
      else reject(new Error(`TCP to ${to}: ${bytes} bytes came back changed`));
    });
  });
}

function udp(to: string, bytes: number): Promise<string> {
  const socket = dgram.createSocket(net.isIPv6(to) ? 'udp6' : 'udp4');
  const payload = randomBytes(Math.ceil(bytes / 2))
    .toString('hex')
    .slice(0, bytes);
  return new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`UDP to ${to}: no answer`)), TIMEOUT_MS);
    socket.on('error', (error) => reject(new Error(`UDP to ${to}: ${error.message}`)));
    socket.on('message', (message) => {
      clearTimeout(timer);
      const [seen, echo] = message.toString('latin1').split(' ');
      if (echo === payload.slice(0, 200)) resolve(seen!);
      else reject(new Error(`UDP to ${to}: answered with something else`));
    });
    socket.send(payload, port, to, (error) => error && reject(error));
  }).finally(() => socket.close());
}

/** `size`: bytes of the whole IP packet; it must not be fragmented. */
function ping(to: string, size: number): Promise<{ ok: boolean; text: string }> {
  const headers = net.isIPv6(to) ? 48 : 28;
  const args = ['-n', '-c', '1', '-W', '2', '-M', 'do', '-s', String(size - headers), to];
  return new Promise((resolve) => {
    execFile('ping', args, (error, stdout, stderr) => resolve({ ok: error === null, text: stdout + stderr }));
  });
}

/** A datagram every `intervalMs`, each answered; counted until stopped. */
function startFlow(id: string, to: string, intervalMs: number): void {
  const socket = dgram.createSocket(net.isIPv6(to) ? 'udp6' : 'udp4');
  const back = new Set<number>();
  const flow = {
    socket,
    back,
    sent: 0,
    timer: setInterval(() => socket.send(`${flow.sent++}`, port, to), intervalMs),
  };
  socket.on('error', () => {});
  socket.on('message', (message) => back.add(Number(message.toString('latin1').split(' ')[1])));
  flows.set(id, flow);
}

async function stopFlow(id: string): Promise<Flow> {
  const flow = flows.get(id);
  if (!flow) throw new Error(`no flow ${id}`);
  flows.delete(id);
  clearInterval(flow.timer);
  const deadline = Date.now() + 1000;
  while (flow.back.size < flow.sent && Date.now() < deadline) await new Promise((r) => setTimeout(r, 10));
  flow.socket.close();
  const lost = Array.from({ length: flow.sent }, (_, i) => i).filter((i) => !flow.back.has(i));
  return { sent: flow.sent, lost };
}

async function sendRaw(to: string, toPort: number, hex: string): Promise<void> {
  const socket = dgram.createSocket(net.isIPv6(to) ? 'udp6' : 'udp4');
  socket.on('error', () => {});
  await new Promise((resolve) => socket.send(Buffer.from(hex, 'hex'), toPort, to, resolve));
  socket.close();
}

async function perform(command: Command): Promise<unknown> {
  switch (command.do) {
    case 'tcp':
      return tcp(command.to, command.bytes);
    case 'udp':
      return udp(command.to, command.bytes);
    case 'ping':
      return ping(command.to, command.size);
    case 'flow.start':
      return startFlow(command.flow, command.to, command.intervalMs);
    case 'flow.sent':
      return flows.get(command.flow)?.sent;
    case 'flow.stop':
      return stopFlow(command.flow);
    case 'send':
      return sendRaw(command.to, command.port, command.hex);
    case 'heard':
      return heard.some((text) => text.startsWith(command.note));
  }
}

await new Promise<void>((resolve, reject) => {
  tcpServer.once('error', reject);
  tcpServer.listen(port, '::', resolve);
});
await Promise.all([udpServer('udp4'), udpServer('udp6')]);
const answer = (value: Answer): boolean => process.stdout.write(`${JSON.stringify(value)}\n`);
answer({ id: 0, value: 'ready' });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...command } = JSON.parse(line) as Command & { id: number };
  perform(command).then(
    (value) => answer({ id, value: value ?? null }),
    (error: unknown) => answer({ id, error: error instanceof Error ? error.message : String(error) }),
  );
}
process.exit(0); // the suite is gone
