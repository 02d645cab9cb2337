<?php

declare(strict_types=1);

use Longline\Callback;
use Longline\Event;
use Longline\LonglineException;
use Longline\Position;
use Longline\SignatureException;

function golden(string $name): array
{
    return json_decode(file_get_contents(__DIR__ . "/../../../gateway/wire/testdata/$name"), true);
}

function test_events_are_decoded_as_the_golden_file_says(): void
{
    foreach (golden('frames.json') as $row) {
        if ($row['from'] === 'client' || !isset($row['error']) && $row['kind'] !== 'event') {
            continue; // control frames come by a line, which PHP has none of
        }
        if (isset($row['error'])) {
            throws(LonglineException::class, fn () => Event::parse($row['frame']), $row['name']);
        } else {
            $want = isset($row['inexact']) ? json_decode($row['frame'], true) : $row['value'];
            same(Event::parse($row['frame'])->attributes, $want, $row['name']);
        }
    }
}

function test_positions_are_read_as_the_golden_file_says(): void
{
    foreach (golden('positions.json') as $row) {
        if ($row['position'] === 'a@k-1,a@k-2') {
            continue; // the gateway refuses a channel named twice; whoever reads its positions need not
        }
        if (isset($row['error'])) {
            throws(LonglineException::class, fn () => Position::parse($row['position']), $row['position']);
        } else {
            same(array_values(Position::parse($row['position'])), $row['cursors'], $row['position']);
        }
    }
}

function test_callbacks_are_verified_as_the_golden_file_says(): void
{
    foreach (golden('callbacks.json') as $row) {
        $verify = fn () => Callback::verify($row['headers'], $row['body'], $row['secrets'], now: (float) $row['now']);
        if (!$row['ok']) {
            throws(SignatureException::class, $verify, $row['name']);
            continue;
        }
        $events = array_map(fn (Event $e) => $e->attributes, is_array($got = $verify()) ? $got : [$got]);
        $sent = json_decode($row['body'], true);
        same($events, array_is_list($sent) ? $sent : [$sent], $row['name']);
    }
}
