/* Sends RADIUS accounting as many NAS do, repeats what is not answered, and says what came of it.
 *
 *     radius_sender NAME=VALUE...
 *
 * Subscriber k of `subscribers` (0 ≤ k) has one session at a time. The first of them have the mobile numbers of
 * `numbers`, a file of 4-octet little-endian ones; the others are numbered from `unlisted` on. The NAS of k is
 * `first_nas` + k mod `nas`; each has `ports` UDP sockets, and 256 identifiers on each (RFC 2866 §3). Its source
 * address is 127.0.1.x. The address of k is 10.0.0.0 + `place` + k, and with each Start one that nobody had before.
 *
 * Open loop: `rate` requests a second for `seconds`, or until SIGTERM, whatever is answered: of 10 requests 8 are
 * Interims, one is a Start and one a Stop, and `share` of 1000 are of numbers of the file. Closed loop (`rate` 0):
 * each subscriber's Start, once, at most `window` unanswered at a time.
 *
 * What is not answered is sent again, the same octets, after `repeat_ms`, then after twice that, and so on (RFC 5080
 * §2.2.1 without its jitter), and counts as unanswered when it is `give_up_ms` old. A request for which all
 * identifiers of its NAS are taken is `held`: not sent, and unanswered. The response time runs from the first sending
 * to the answer, whose authenticator is verified (RFC 2866 §3). Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IDENTIFIERS 256
#define MOST_BYTES 400
#define BURST 32
#define SCAN_NS 10000000LL
#define BUFFER_BYTES (8 << 20)
#define AT_ONCE 64
/* Response times: 32 buckets for each power of two of nanoseconds. */
#define FINE 32
#define BUCKETS (64 * FINE)

enum { START = 1, STOP = 2, INTERIM = 3 };

/* MD5 (RFC 1321). */

static const uint8_t turns[64] = {
    7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 7, 12, 17, 22, 5, 9,  14, 20, 5, 9,  14, 20, 5, 9,  14, 20, 5, 9,  14, 20,
    4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 4, 11, 16, 23, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21, 6, 10, 15, 21};
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af,
    0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa,
    0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8,
    0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97,
    0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1,
    0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

static void md5_block(uint32_t state[4], const uint8_t *block)
{
    uint32_t word[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (int i = 0; i < 16; i++)
        word[i] = block[4 * i] | block[4 * i + 1] << 8 | block[4 * i + 2] << 16 | (uint32_t)block[4 * i + 3] << 24;
    for (int i = 0; i < 64; i++) {
        uint32_t mixed;
        int which;
        if (i < 16)
            mixed = (b & c) | (~b & d), which = i;
        else if (i < 32)
            mixed = (d & b) | (~d & c), which = (5 * i + 1) % 16;
        else if (i < 48)
            mixed = b ^ c ^ d, which = (3 * i + 5) % 16;
        else
            mixed = c ^ (b | ~d), which = 7 * i % 16;
        mixed += a + sines[i] + word[which];
        a = d, d = c, c = b;
        b += mixed << turns[i] | mixed >> (32 - turns[i]);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

/* Of up to MOST_BYTES and a secret. */
static void md5(const uint8_t *octets, size_t length, uint8_t digest[16])
{
    uint8_t padded[MOST_BYTES + 256] = {0};
    size_t whole = (length + 8) / 64 * 64 + 64;
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    memcpy(padded, octets, length);
    padded[length] = 0x80;
    for (int i = 0; i < 8; i++)
        padded[whole - 8 + i] = (uint8_t)((uint64_t)length * 8 >> 8 * i);
    for (size_t at = 0; at < whole; at += 64)
        md5_block(state, padded + at);
    for (int i = 0; i < 16; i++)
        digest[i] = (uint8_t)(state[i / 4] >> 8 * (i % 4));
}

/* What was asked for. */

static struct {
    long long port, first_nas, nas, ports, subscribers, unlisted, share, rate, window, repeat_ms, give_up_ms, seed, place;
    double seconds;
    const char *secret, *numbers;
} asked = {.port = 1813, .nas = 20, .ports = 8, .subscribers = 1000, .unlisted = 5000000, .share = 30, .window = 256,
           .repeat_ms = 2000, .give_up_ms = 10000, .seed = 1, .secret = "testing123", .numbers = "", .seconds = 1.0};

static void read_words(int count, char **words)
{
    struct {
        const char *name;
        long long *value;
    } numbers[] = {{"port", &asked.port}, {"first_nas", &asked.first_nas}, {"nas", &asked.nas}, {"ports", &asked.ports},
                   {"subscribers", &asked.subscribers}, {"unlisted", &asked.unlisted}, {"share", &asked.share},
                   {"rate", &asked.rate}, {"window", &asked.window}, {"repeat_ms", &asked.repeat_ms},
                   {"give_up_ms", &asked.give_up_ms}, {"seed", &asked.seed},
                   {"place", &asked.place}};
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=');
        bool is_known = value != NULL;
        if (is_known) {
            *value++ = '\0';
            is_known = false;
            for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
                if (strcmp(words[i], numbers[n].name) == 0)
                    *numbers[n].value = atoll(value), is_known = true;
            if (strcmp(words[i], "secret") == 0)
                asked.secret = value, is_known = strlen(value) <= 128;
            if (strcmp(words[i], "numbers") == 0)
                asked.numbers = value, is_known = true;
            if (strcmp(words[i], "seconds") == 0)
                asked.seconds = atof(value), is_known = true;
        }
        if (!is_known)
            errx(2, "%s: not NAME=VALUE that I know", words[i]);
    }
    if (asked.nas < 1 || asked.first_nas < 0 || asked.first_nas + asked.nas > 200 || asked.ports < 1 ||
        asked.subscribers < asked.nas || asked.window < 1 || asked.repeat_ms < 1)
        errx(2, "nas, ports, subscribers, window or repeat_ms make no sense");
}

/* Subscribers: those with numbers of the file, and the others. */

struct pool {
    uint32_t first, count, *idle, idle_count;
};

static uint32_t *listed;
static uint32_t listed_count;
static uint8_t *lives, *is_live;
static struct pool pools[2];
static uint64_t random_state;

static uint32_t drawn(uint32_t below)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 11) % below);
}

static void make_subscribers(void)
{
    if (*asked.numbers != '\0') {
        FILE *file = fopen(asked.numbers, "rb");
        if (file == NULL || fseek(file, 0, SEEK_END) != 0)
            err(1, "%s", asked.numbers);
        size_t count = (size_t)ftell(file) / 4;
        rewind(file);
        listed = calloc(count + 1, 4);
        if (listed == NULL || fread(listed, 4, count, file) != count)
            errx(1, "%s: cut short, or no memory", asked.numbers);
        fclose(file);
        listed_count = count < (size_t)asked.subscribers ? (uint32_t)count : (uint32_t)asked.subscribers;
    }
    random_state = (uint64_t)asked.seed * 0x9e3779b97f4a7c15u | 1;
    lives = calloc((size_t)asked.subscribers, 1);
    is_live = calloc((size_t)asked.subscribers, 1);
    pools[0] = (struct pool){.first = 0, .count = listed_count};
    pools[1] = (struct pool){.first = listed_count, .count = (uint32_t)asked.subscribers - listed_count};
    for (int i = 0; i < 2; i++) {
        struct pool *pool = &pools[i];
        pool->idle = calloc(pool->count + 1, 4);
        if (lives == NULL || is_live == NULL || pool->idle == NULL)
            errx(1, "no memory");
        /* One of twenty is not connected when it begins. */
        for (uint32_t k = pool->first; k < pool->first + pool->count; k++)
            if (!(is_live[k] = drawn(20) != 0))
                pool->idle[pool->idle_count++] = k;
    }
}

/* Of whom the next request is, and what it says; the session's state is as after it. */
static uint32_t choose(int *kind)
{
    bool is_listed = pools[0].count > 0 && (pools[1].count == 0 || drawn(1000) < asked.share);
    struct pool *pool = &pools[!is_listed];
    uint32_t chance = drawn(10), k;
    *kind = chance == 0 ? START : chance == 1 ? STOP : INTERIM;
    if (*kind == START && pool->idle_count > 0) {
        uint32_t at = drawn(pool->idle_count);
        k = pool->idle[at];
        pool->idle[at] = pool->idle[--pool->idle_count];
        is_live[k] = 1;
        lives[k]++;
        return k;
    }
    for (int tries = 0; tries < 1000; tries++) {
        k = pool->first + drawn(pool->count);
        if (!is_live[k])
            continue;
        if (*kind == STOP) {
            is_live[k] = 0;
            pool->idle[pool->idle_count++] = k;
        } else {
            *kind = INTERIM;
        }
        return k;
    }
    *kind = INTERIM; /* nearly nobody is connected */
    return pool->first + drawn(pool->count);
}

/* Packets. */

struct packet {
    uint16_t length;
    uint8_t octets[MOST_BYTES];
};

static void put(struct packet *packet, uint8_t type, const void *value, size_t length)
{
    packet->octets[packet->length++] = type;
    packet->octets[packet->length++] = (uint8_t)(length + 2);
    memcpy(packet->octets + packet->length, value, length);
    packet->length += (uint16_t)length;
}

static void put_integer(struct packet *packet, uint8_t type, uint32_t value)
{
    uint32_t network = htonl(value);
    put(packet, type, &network, 4);
}

__attribute__((format(printf, 3, 4))) static void put_text(struct packet *packet, uint8_t type, const char *format, ...)
{
    char text[64];
    va_list values;
    va_start(values, format);
    put(packet, type, text, (size_t)vsnprintf(text, sizeof text, format, values));
    va_end(values);
}

static long long nas_of(uint32_t k)
{
    return asked.first_nas + k % asked.nas;
}

/* RFC 2866 §4.1: who, where, what for; a life of a subscriber is a session of its own, at addresses of its own. */
static void write_request(struct packet *packet, uint8_t identifier, uint32_t k, int kind)
{
    uint32_t number = k < listed_count ? listed[k] : (uint32_t)asked.unlisted + k;
    uint32_t place = (uint32_t)(((uint64_t)asked.place + k + (uint64_t)lives[k] * (uint64_t)asked.subscribers) % (1 << 24));
    uint8_t prefix[10] = {0, 64, 0x24, 0x00, 0xad, 0xc1};
    uint32_t place_network = htonl(place);
    memcpy(prefix + 6, &place_network, 4);
    packet->octets[0] = 4;
    packet->octets[1] = identifier;
    memset(packet->octets + 4, 0, 16);
    packet->length = 20;
    put_integer(packet, 40, (uint32_t)kind);
    put_text(packet, 44, "s%x-%x", k, lives[k]);
    put_text(packet, 1, "mobile@internet.example");
    put_text(packet, 31, "+92300%07u", number % 10000000);
    put_text(packet, 30, "internet");
    put_text(packet, 32, "bng-%02lld.core.example", nas_of(k));
    put_integer(packet, 4, 0x7f000100 + (uint32_t)nas_of(k) + 1);
    put_integer(packet, 5, k);
    put_integer(packet, 61, 18); /* Wireless-Other */
    put_integer(packet, 6, 2);   /* Framed */
    put_integer(packet, 7, 7);   /* GPRS-PDP-Context */
    put_integer(packet, 8, 0x0a000000 | place);
    put(packet, 97, prefix, sizeof prefix);
    put_text(packet, 25, "class-of-%08x", k);
    put_integer(packet, 45, 1);
    put_integer(packet, 55, (uint32_t)time(NULL));
    if (kind != START) {
        put_integer(packet, 46, 900);
        put_integer(packet, 42, 12345678);
        put_integer(packet, 43, 87654321);
        put_integer(packet, 47, 12345);
        put_integer(packet, 48, 54321);
    }
    if (kind == STOP)
        put_integer(packet, 49, 1);
    packet->octets[2] = (uint8_t)(packet->length >> 8);
    packet->octets[3] = (uint8_t)packet->length;
    uint8_t signed_octets[MOST_BYTES + 128];
    size_t secret_length = strlen(asked.secret);
    memcpy(signed_octets, packet->octets, packet->length);
    memcpy(signed_octets + packet->length, asked.secret, secret_length);
    md5(signed_octets, packet->length + secret_length, packet->octets + 4);
}

static bool is_answer(const struct packet *request, const uint8_t *octets, size_t length)
{
    uint8_t signed_octets[MOST_BYTES + 128], digest[16];
    size_t secret_length = strlen(asked.secret);
    if (length < 20 || length > MOST_BYTES || octets[0] != 5 || (size_t)(octets[2] << 8 | octets[3]) != length)
        return false;
    memcpy(signed_octets, octets, length);
    memcpy(signed_octets + 4, request->octets + 4, 16);
    memcpy(signed_octets + length, asked.secret, secret_length);
    md5(signed_octets, length + secret_length, digest);
    return memcmp(digest, octets + 4, 16) == 0;
}

/* What is under way. A slot is a socket's identifier; `due_ns` 0: free. */

struct slot {
    long long first_ns;
    int pause_ms;
    struct packet packet;
};

static int *sockets;
static uint8_t *cursors;
static struct slot *slots;
static long long *due_ns;
static long long socket_count, under_way;
static struct {
    long long asked, sent, answered, unanswered, held, repeats, bad, refused;
} counts;
static long long times[BUCKETS], longest_ns;
static volatile sig_atomic_t is_ending;

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void note_time(long long took_ns)
{
    uint64_t value = took_ns < FINE ? FINE : (uint64_t)took_ns;
    int power = 63 - __builtin_clzll(value);
    times[power * FINE + (int)((value >> (power - 5)) & (FINE - 1))]++;
    if (took_ns > longest_ns)
        longest_ns = took_ns;
}

static double time_at(double part)
{
    long long seen = 0, wanted = (long long)(part * (double)counts.answered) + 1;
    for (int i = 5 * FINE; i < BUCKETS; i++)
        if ((seen += times[i]) >= wanted)
            return ((double)(FINE + i % FINE) + 0.5) * (double)(1ULL << (i / FINE)) / FINE / 1e9;
    return (double)longest_ns / 1e9;
}

static int open_sockets(void)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    socket_count = asked.nas * asked.ports;
    sockets = calloc((size_t)socket_count, sizeof *sockets);
    cursors = calloc((size_t)socket_count, 1);
    slots = calloc((size_t)socket_count * IDENTIFIERS, sizeof *slots);
    due_ns = calloc((size_t)socket_count * IDENTIFIERS, sizeof *due_ns);
    if (poller < 0 || sockets == NULL || cursors == NULL || slots == NULL || due_ns == NULL)
        errx(1, "no memory");
    for (long long i = 0; i < socket_count; i++) {
        struct sockaddr_in own = {.sin_family = AF_INET}, server = {.sin_family = AF_INET};
        own.sin_addr.s_addr = htonl(0x7f000100 + (uint32_t)(asked.first_nas + i / asked.ports) + 1);
        server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        server.sin_port = htons((uint16_t)asked.port);
        int size = BUFFER_BYTES / (int)asked.ports;
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)i};
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (sockets[i] < 0 || bind(sockets[i], (struct sockaddr *)&own, sizeof own) != 0 ||
            connect(sockets[i], (struct sockaddr *)&server, sizeof server) != 0 ||
            epoll_ctl(poller, EPOLL_CTL_ADD, sockets[i], &event) != 0)
            err(1, "socket");
        if (setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
            setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
    return poller;
}

static void send_slot(long long which)
{
    struct packet *packet = &slots[which].packet;
    if (send(sockets[which / IDENTIFIERS], packet->octets, packet->length, 0) < 0)
        counts.refused++; /* nobody listens, or no room: it is repeated */
}

/* A free identifier of the subscriber's NAS; -1: all are taken. */
static long long free_slot(uint32_t k)
{
    long long first = (nas_of(k) - asked.first_nas) * asked.ports, from = k / asked.nas;
    for (long long i = 0; i < asked.ports; i++) {
        long long which = first + (from + i) % asked.ports;
        for (int tries = 0; tries < IDENTIFIERS; tries++) {
            long long found = which * IDENTIFIERS + cursors[which]++;
            if (due_ns[found] == 0)
                return found;
        }
    }
    return -1;
}

static void send_word(uint32_t k, int kind)
{
    long long which = free_slot(k);
    counts.asked++;
    if (which < 0) {
        counts.held++;
        counts.unanswered++;
        return;
    }
    struct slot *slot = &slots[which];
    write_request(&slot->packet, (uint8_t)(which % IDENTIFIERS), k, kind);
    slot->pause_ms = (int)asked.repeat_ms;
    slot->first_ns = now_ns();
    due_ns[which] = slot->first_ns + asked.repeat_ms * 1000000;
    under_way++;
    counts.sent++;
    send_slot(which);
}

static void take_answers(int poller)
{
    struct epoll_event events[AT_ONCE];
    int ready = epoll_wait(poller, events, AT_ONCE, 0);
    for (int i = 0; i < ready; i++) {
        long long from = (long long)events[i].data.u64;
        uint8_t octets[MOST_BYTES];
        for (int helping = 0; helping < AT_ONCE; helping++) {
            ssize_t length = recv(sockets[from], octets, sizeof octets, 0);
            if (length < 0) {
                counts.refused += errno == ECONNREFUSED;
                break;
            }
            long long which = from * IDENTIFIERS + (length > 1 ? octets[1] : 0);
            if (due_ns[which] == 0)
                continue; /* the answer to a repeat, or too late */
            if (!is_answer(&slots[which].packet, octets, (size_t)length)) {
                counts.bad++;
                continue;
            }
            note_time(now_ns() - slots[which].first_ns);
            counts.answered++;
            due_ns[which] = 0;
            under_way--;
        }
    }
}

static void repeat_what_is_due(long long now)
{
    for (long long which = 0; which < socket_count * IDENTIFIERS; which++) {
        if (due_ns[which] == 0 || due_ns[which] > now)
            continue;
        struct slot *slot = &slots[which];
        if (now - slot->first_ns >= asked.give_up_ms * 1000000) {
            due_ns[which] = 0;
            under_way--;
            counts.unanswered++;
            continue;
        }
        slot->pause_ms *= 2;
        due_ns[which] = now + slot->pause_ms * 1000000LL;
        if (due_ns[which] > slot->first_ns + asked.give_up_ms * 1000000)
            due_ns[which] = slot->first_ns + asked.give_up_ms * 1000000;
        counts.repeats++;
        send_slot(which);
    }
}

static void rest(int poller, long long until_ns)
{
    long long left_ns = until_ns - now_ns();
    if (left_ns <= 0)
        return;
    struct timespec pause = {left_ns / 1000000000, left_ns % 1000000000};
    struct pollfd waiting = {.fd = poller, .events = POLLIN};
    ppoll(&waiting, 1, &pause, NULL);
}

static void end(int number)
{
    (void)number;
    is_ending = 1;
}

int main(int count, char **words)
{
    read_words(count, words);
    make_subscribers();
    int poller = open_sockets();
    signal(SIGTERM, end);
    const bool is_open = asked.rate > 0;
    const long long total = is_open ? (long long)((double)asked.rate * asked.seconds) : asked.subscribers;
    const long long began = now_ns();
    long long number = 0, scanned = began, last = began;
    while (number < total || under_way > 0) {
        long long now = now_ns();
        if (is_ending && number < total)
            number = total;
        long long owed = is_open ? (long long)((double)(now - began) / 1e9 * (double)asked.rate) + 1 : total;
        for (int sent = 0; sent < BURST && number < total && number < owed; sent++) {
            int kind = START;
            uint32_t k = (uint32_t)number;
            if (!is_open && under_way >= asked.window)
                break;
            if (is_open)
                k = choose(&kind);
            number++;
            send_word(k, kind);
            last = now;
        }
        take_answers(poller);
        if (now - scanned >= SCAN_NS) {
            repeat_what_is_due(now);
            scanned = now;
        }
        long long next = scanned + SCAN_NS;
        if (is_open && number < total) {
            long long due = began + (long long)((double)number / (double)asked.rate * 1e9);
            next = due < next ? due : next;
        }
        if (is_open || under_way >= asked.window || number >= total)
            rest(poller, next);
    }
    const double seconds = (double)((is_open ? last : now_ns()) - began) / 1e9;
    printf("{\"asked\":%lld,\"sent\":%lld,\"answered\":%lld,\"unanswered\":%lld,\"held\":%lld,\"repeats\":%lld,"
           "\"bad\":%lld,\"refused\":%lld,\"seconds\":%.6f,\"p50_s\":%.9f,\"p99_s\":%.9f,\"longest_s\":%.9f}\n",
           counts.asked, counts.sent, counts.answered, counts.unanswered, counts.held, counts.repeats, counts.bad,
           counts.refused, seconds, time_at(0.5), time_at(0.99), (double)longest_ns / 1e9);
    return 0;
}
