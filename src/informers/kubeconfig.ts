/**
 * A kubeconfig (or a pod's service account) → how to reach an API server and who to be there.
 *
 * Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, WeftError } from '../base/errors.ts';

export interface ApiAccess {
  /** `https://host:port`, possibly with a path prefix; no slash at its end. */
  server: string;
  /** PEM. Absent: the system's authorities. */
  ca?: string;
  /** PEM client certificate and key. */
  cert?: string;
  key?: string;
  token?: string;
  /** Read again while running: bound tokens are replaced under way. Wins over `token`. */
  tokenFile?: string;
  /** Name to verify in the server's certificate instead of the host. */
  tlsServerName?: string;
  insecureSkipTlsVerify?: boolean;
  /** Namespace of the context; default `default`. */
  namespace: string;
}

type Json = Record<string, unknown>;

/**
 * Read the kubeconfig at `file` for its current context, or for `context`. References to files are relative to it.
 * @throws WEFT_KUBECONFIG_INVALID
 */
export async function loadKubeconfig(file: string, context?: string): Promise<ApiAccess> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw invalid(file, messageOf(error), error);
  }
  return parseKubeconfig(text, { file, ...(context !== undefined && { context }) });
}

/** @throws WEFT_KUBECONFIG_INVALID */
export async function parseKubeconfig(
  text: string,
  options: { file: string; context?: string },
): Promise<ApiAccess> {
  const { file } = options;
  const config = await parseText(text, file);
  const contextName = options.context ?? config['current-context'];
  if (typeof contextName !== 'string' || contextName === '')
    throw invalid(file, 'current-context is not set');
  const context = entry(config, 'contexts', 'context', contextName, file);
  const cluster = entry(config, 'clusters', 'cluster', requiredText(context, 'cluster', file), file);
  const userName = context.user;
  const user = typeof userName === 'string' && userName ? entry(config, 'users', 'user', userName, file) : {};
  for (const unsupported of ['exec', 'auth-provider', 'username', 'as']) {
    if (user[unsupported] !== undefined) {
      throw invalid(file, `user ${String(userName)} uses "${unsupported}", which Weft does not support`);
    }
  }

  const server = requiredText(cluster, 'server', file).replace(/\/+$/, '');
  if (!URL.canParse(server) || !/^https?:$/.test(new URL(server).protocol)) {
    throw invalid(file, `server ${JSON.stringify(server)} is not an http(s) URL`);
  }
  const access: ApiAccess = { server, namespace: optionalText(context, 'namespace', file) ?? 'default' };
  const ca = await material(cluster, 'certificate-authority', file);
  const cert = await material(user, 'client-certificate', file);
  const key = await material(user, 'client-key', file);
  if ((cert === undefined) !== (key === undefined)) {
    throw invalid(file, 'client-certificate and client-key come together');
  }
  if (ca !== undefined) access.ca = ca;
  if (cert !== undefined) access.cert = cert;
  if (key !== undefined) access.key = key;
  const token = optionalText(user, 'token', file);
  if (token !== undefined) access.token = token;
  const tokenFile = optionalText(user, 'tokenFile', file);
  if (tokenFile !== undefined) access.tokenFile = path.resolve(path.dirname(file), tokenFile);
  const tlsServerName = optionalText(cluster, 'tls-server-name', file);
  if (tlsServerName !== undefined) access.tlsServerName = tlsServerName;
  if (cluster['insecure-skip-tls-verify'] === true) access.insecureSkipTlsVerify = true;
  return access;
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Access of a pod by its service account; undefined outside of pods. */
export async function inClusterAccess(
  env: NodeJS.ProcessEnv = process.env,
  folder = SERVICE_ACCOUNT,
): Promise<ApiAccess | undefined> {
  const host = env.KUBERNETES_SERVICE_HOST;
  const port = env.KUBERNETES_SERVICE_PORT;
  if (!host || !port) return undefined;
  try {
    return {
      server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
      ca: await readFile(path.join(folder, 'ca.crt'), 'utf8'),
      tokenFile: path.join(folder, 'token'),
      namespace: (await readFile(path.join(folder, 'namespace'), 'utf8')).trim(),
    };
  } catch (error) {
    throw invalid(folder, messageOf(error), error);
  }
}

function invalid(file: string, message: string, cause?: unknown): WeftError {
  return new WeftError('WEFT_KUBECONFIG_INVALID', `${file}: ${message}`, { cause, details: { file } });
}

async function parseText(text: string, file: string): Promise<Json> {
  let value: unknown;
  try {
    // JSON needs no YAML parser, which takes a tenth of the time that an agent has to start.
    value = text.trimStart().startsWith('{') ? JSON.parse(text) : (await import('yaml')).parse(text);
  } catch (error) {
    throw invalid(file, `neither YAML nor JSON: ${messageOf(error)}`, error);
  }
  if (!isObject(value)) throw invalid(file, 'is not a kubeconfig');
  return value;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function entry(config: Json, list: string, field: string, name: string, file: string): Json {
  const all = config[list];
  const found = Array.isArray(all) ? all.find((item) => isObject(item) && item.name === name) : undefined;
  const value = isObject(found) ? found[field] : undefined;
  if (!isObject(value)) throw invalid(file, `${list} has no ${JSON.stringify(name)}`);
  return value;
}

function optionalText(from: Json, field: string, file: string): string | undefined {
  const value = from[field];
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value !== 'string') throw invalid(file, `${field} is not a string`);
  return value;
}

function requiredText(from: Json, field: string, file: string): string {
  const value = optionalText(from, field, file);
  if (value === undefined) throw invalid(file, `${field} is missing`);
  return value;
}

/** PEM given inline in base64 (`…-data`, which wins) or by a file. */
async function material(from: Json, field: string, file: string): Promise<string | undefined> {
  const data = optionalText(from, `${field}-data`, file);
  let pem: string;
  if (data !== undefined) pem = Buffer.from(data, 'base64').toString('latin1');
  else {
    const reference = optionalText(from, field, file);
    if (reference === undefined) return undefined;
    try {
      pem = await readFile(path.resolve(path.dirname(file), reference), 'latin1');
    } catch (error) {
      throw invalid(file, `${field}: ${messageOf(error)}`, error);
    }
  }
  if (!pem.includes('-----BEGIN ')) throw invalid(file, `${field} is not PEM`);
  return pem;
}
