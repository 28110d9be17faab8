/**
 * The cluster's certificates: a CA made at first start, the server's certificate, client certificates whose CN is the
 * user and whose O are the groups, and kubeconfig files. ECDSA P-256 throughout. Files have mode 0600 and appear whole
 * or not at all.
 */
import { createPrivateKey, randomBytes, type webcrypto, X509Certificate } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname, join } from 'node:path';
import { messageOf, WeftError } from '../base/errors.ts';
import { loadX509 } from './x509.ts';

const DAY = 24 * 3600 * 1000;
const CA_LIFE = 10 * 365 * DAY;
const LEAF_LIFE = 365 * DAY;
/** A certificate is made anew when less than this is left. */
const RENEW_BEFORE = 60 * DAY;
/** Clocks of other machines may be behind. */
const BACKDATE = 5 * 60 * 1000;

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** PEM texts. */
export interface KeyPair {
  cert: string;
  key: string;
}

export interface ClientIdentity {
  /** Common name. */
  user: string;
  /** Organisations, such as `system:masters`. */
  groups: string[];
}

/** Who a cluster's first kubeconfig speaks for. */
export const ADMIN: ClientIdentity = { user: 'kubernetes-admin', groups: ['system:masters'] };

/** The CA in `dir` (ca.crt, ca.key), made if there is none. Throws WEFT_PKI_BROKEN. */
export async function ensureCa(dir: string): Promise<KeyPair> {
  const found = readPair(dir, 'ca');
  if (found && new X509Certificate(found.cert).ca) return found;
  if (found) throw new WeftError('WEFT_PKI_BROKEN', `${join(dir, 'ca.crt')} is not the certificate of a CA`);
  const x509 = await loadX509();
  const keys = await generateKeys();
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: ['weft-ca'] }],
    notBefore: new Date(Date.now() - BACKDATE),
    notAfter: new Date(Date.now() + CA_LIFE),
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign | x509.KeyUsageFlags.digitalSignature,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return writePair(dir, 'ca', { cert: `${cert.toString('pem')}\n`, key: await pemOfKey(keys.privateKey) });
}

/**
 * The server's certificate in `dir` (apiserver.crt, apiserver.key) for these DNS names and addresses; made anew when it
 * lacks one, was signed by another CA, or will expire within 60 days.
 */
export async function ensureServerCertificate(dir: string, ca: KeyPair, names: string[]): Promise<KeyPair> {
  const found = readPair(dir, 'apiserver');
  const wanted = [...new Set(names.filter(Boolean))];
  if (found && usable(found, ca)) {
    const certificate = new X509Certificate(found.cert);
    if (wanted.every((n) => (isIP(n) ? certificate.checkIP(n) : certificate.checkHost(n)) !== undefined))
      return found;
  }
  const pair = await issue(ca, [{ CN: ['weft-apiserver'] }], 'server', wanted);
  return writePair(dir, 'apiserver', pair);
}

/** A client certificate, not stored. */
export async function signClient(ca: KeyPair, identity: ClientIdentity): Promise<KeyPair> {
  return issue(
    ca,
    [{ CN: [identity.user] }, ...identity.groups.map((group) => ({ O: [group] }))],
    'client',
    [],
  );
}

/**
 * A client certificate kept in `dir`, which holds the CA too; file names follow the user (`system:node:a` →
 * system-node-a.crt). The one that is there is given while it fits.
 */
export async function issueClient(dir: string, identity: ClientIdentity): Promise<KeyPair> {
  const ca = await ensureCa(dir);
  const name = `client-${identity.user.replace(/[^A-Za-z0-9.-]+/g, '-')}`;
  const found = readPair(dir, name);
  if (found && usable(found, ca) && sameSubject(found.cert, identity)) return found;
  return writePair(dir, name, await signClient(ca, identity));
}

function sameSubject(cert: string, { user, groups }: ClientIdentity): boolean {
  const subject = new X509Certificate(cert).toLegacyObject().subject as {
    CN?: string;
    O?: string | string[];
  };
  const found = [subject.O ?? []].flat();
  return subject.CN === user && found.length === groups.length && groups.every((g) => found.includes(g));
}

/** Whether the CA signed it and enough of its life is left. */
function usable(pair: KeyPair, ca: KeyPair): boolean {
  const certificate = new X509Certificate(pair.cert);
  const issuer = new X509Certificate(ca.cert);
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey) && !isExpiring(pair.cert);
}

export const isExpiring = (cert: string, now = Date.now()): boolean =>
  Date.parse(new X509Certificate(cert).validTo) - now < RENEW_BEFORE;

async function issue(
  ca: KeyPair,
  subject: Array<Record<string, string[]>>,
  use: 'server' | 'client',
  names: string[],
): Promise<KeyPair> {
  const x509 = await loadX509();
  const keys = await generateKeys();
  const issuer = new x509.X509Certificate(ca.cert);
  const signingKey = await crypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(ca.key).export({ type: 'pkcs8', format: 'der' }),
    ALGORITHM,
    false,
    ['sign'],
  );
  const end = Math.min(Date.now() + LEAF_LIFE, issuer.notAfter.getTime());
  const cert = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject,
    issuer: issuer.subjectName,
    notBefore: new Date(Date.now() - BACKDATE),
    notAfter: new Date(end),
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        use === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth,
      ]),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ...(names.length > 0
        ? [
            new x509.SubjectAlternativeNameExtension(
              names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
            ),
          ]
        : []),
    ],
  });
  return { cert: `${cert.toString('pem')}\n`, key: await pemOfKey(keys.privateKey) };
}

const generateKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString();
}

/** 127 random bits; the first one is clear, so that DER reads it as positive. */
function serialNumber(): string {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] as number) & 0x7f) | 0x40;
  return serial.toString('hex');
}

/** NAME.crt and NAME.key; undefined when both are missing. Throws WEFT_PKI_BROKEN when they do not fit together. */
function readPair(dir: string, name: string): KeyPair | undefined {
  const [certPath, keyPath] = [join(dir, `${name}.crt`), join(dir, `${name}.key`)];
  // The key is written first: a key without a certificate is a start that was cut short.
  if (!existsSync(certPath)) return undefined;
  try {
    const pair = { cert: readFileSync(certPath, 'utf8'), key: readFileSync(keyPath, 'utf8') };
    if (!new X509Certificate(pair.cert).checkPrivateKey(createPrivateKey(pair.key)))
      throw new Error('the key is not that of the certificate');
    return pair;
  } catch (error) {
    throw new WeftError('WEFT_PKI_BROKEN', `${certPath}: ${messageOf(error)}`, {
      cause: error,
      details: { certPath, keyPath },
    });
  }
}

function writePair(dir: string, name: string, pair: KeyPair): KeyPair {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  rmSync(join(dir, `${name}.crt`), { force: true });
  writePrivate(join(dir, `${name}.key`), pair.key);
  writePrivate(join(dir, `${name}.crt`), pair.cert);
  return pair;
}

/** Mode 0600, in place of what was there, whole or not at all. */
function writePrivate(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.new`;
  writeFileSync(temporary, text, { mode: 0o600, flush: true });
  chmodSync(temporary, 0o600);
  renameSync(temporary, path);
}

/** A kubeconfig with everything inline, as JSON, which is YAML that readers need no library for. `server` is a URL. */
export function kubeconfigText(options: {
  server: string;
  ca: string;
  cert: string;
  key: string;
  /** Name of cluster, user and context. Default `weft`. */
  name?: string;
  namespace?: string;
}): string {
  const { name = 'weft', namespace } = options;
  const data = (pem: string): string => Buffer.from(pem).toString('base64');
  const cluster = { server: options.server, 'certificate-authority-data': data(options.ca) };
  const user = { 'client-certificate-data': data(options.cert), 'client-key-data': data(options.key) };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': name,
    clusters: [{ name, cluster }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name, ...(namespace && { namespace }) } }],
  };
  return `${JSON.stringify(config, undefined, 2)}\n`;
}

/** {@link kubeconfigText} in a file of mode 0600; folders are made. */
export function writeKubeconfig(path: string, options: Parameters<typeof kubeconfigText>[0]): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writePrivate(path, kubeconfigText(options));
}
