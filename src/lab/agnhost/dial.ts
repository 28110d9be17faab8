/** Reaching out from inside a pod: one request over HTTP, TCP or UDP, and what came of it. */
import { createSocket } from 'node:dgram';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';

export type DialProtocol = 'http' | 'tcp' | 'udp';

export interface DialResult {
  response?: string;
  error?: string;
  /** `address:port` of this end, `[address]:port` for IPv6: what the peer sees if nobody translates addresses. */
  local?: string;
}

const MAX_ANSWER = 65_536;

/** Never throws; ends within `timeout` milliseconds. */
export function dial(
  protocol: DialProtocol,
  host: string,
  port: number,
  request: string,
  timeout: number,
): Promise<DialResult> {
  return { http: dialHttp, tcp: dialTcp, udp: dialUdp }[protocol](host, port, request, timeout);
}

/** As Go's net.JoinHostPort writes it. */
export function hostPort(address: string, port: number): string {
  const bare = address.replace(/^::ffff:(?=\d+\.)/, '');
  return bare.includes(':') ? `[${bare}]:${port}` : `${bare}:${port}`;
}

function dialHttp(host: string, port: number, request: string, timeout: number): Promise<DialResult> {
  return settle(timeout, (done, result) => {
    const outgoing = httpRequest(
      { host, port, path: `/${request.replace(/^\//, '')}`, agent: false },
      (incoming) => {
        let body = '';
        incoming.setEncoding('utf8');
        incoming.on('data', (chunk: string) => {
          if (body.length < MAX_ANSWER) body += chunk;
        });
        incoming.on('end', () =>
          done(
            incoming.statusCode && incoming.statusCode < 400
              ? { response: body }
              : { error: `HTTP ${incoming.statusCode}: ${body}` },
          ),
        );
        incoming.on('error', (error) => done({ error: error.message }));
      },
    );
    outgoing.on('socket', (socket) =>
      socket.once('connect', () => {
        result.local = hostPort(socket.localAddress ?? '', socket.localPort ?? 0);
      }),
    );
    outgoing.on('error', (error) => done({ error: error.message }));
    outgoing.end();
    return () => outgoing.destroy();
  });
}

function dialTcp(host: string, port: number, request: string, timeout: number): Promise<DialResult> {
  return settle(timeout, (done, result) => {
    const socket = connect({ host, port });
    let answer = '';
    socket.setEncoding('utf8');
    socket.once('connect', () => {
      result.local = hostPort(socket.localAddress ?? '', socket.localPort ?? 0);
      socket.write(`${request}\n`);
    });
    socket.on('data', (chunk: string) => {
      answer += chunk;
      if (answer.includes('\n') || answer.length > MAX_ANSWER) done({ response: answer.replace(/\n$/, '') });
    });
    socket.on('end', () => done(answer ? { response: answer } : { error: 'closed without an answer' }));
    socket.on('error', (error) => done({ error: error.message }));
    return () => socket.destroy();
  });
}

function dialUdp(host: string, port: number, request: string, timeout: number): Promise<DialResult> {
  return settle(timeout, (done, result) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (message) => done({ response: message.toString() }));
    socket.on('error', (error) => done({ error: error.message }));
    // Connected, so that an ICMP error comes back as one.
    socket.connect(port, host, (error?: Error) => {
      if (error) return done({ error: error.message });
      const { address, port: own } = socket.address();
      result.local = hostPort(address, own);
      socket.send(request);
    });
    return () => socket.close();
  });
}

function settle(
  timeout: number,
  start: (done: (outcome: DialResult) => void, result: DialResult) => () => void,
): Promise<DialResult> {
  return new Promise((resolve) => {
    const result: DialResult = {};
    let over = false;
    const done = (outcome: DialResult): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      setImmediate(() => stop());
      resolve({ ...result, ...outcome });
    };
    const timer = setTimeout(() => done({ error: `timed out after ${timeout} ms` }), timeout);
    const stop = start(done, result);
  });
}
