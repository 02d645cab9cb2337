<?php

/** Runs the tests: every function named test_… of the files beside it. Ends with 1 if one fails. */
declare(strict_types=1);

require __DIR__ . '/../autoload.php';

function same(mixed $got, mixed $want, string $what = ''): void
{
    if ($got !== $want) {
        throw new Exception(($what ? "$what: " : '') . 'got ' . var_export($got, true) . ', want ' . var_export($want, true));
    }
}

function throws(string $class, callable $call, string $what = ''): Throwable
{
    try {
        $call();
    } catch (Throwable $thrown) {
        if ($thrown instanceof $class) {
            return $thrown;
        }
        throw $thrown;
    }
    throw new Exception("$what: nothing was thrown, want $class");
}

ini_set('error_log', '/dev/null');
foreach (glob(__DIR__ . '/*_test.php') as $file) {
    require $file;
}
$failed = $run = 0;
foreach (get_defined_functions()['user'] as $test) {
    if (!str_starts_with($test, 'test_')) {
        continue;
    }
    $run++;
    try {
        $test();
    } catch (Throwable $error) {
        $failed++;
        echo "FAIL $test: {$error->getMessage()}\n  at {$error->getFile()}:{$error->getLine()}\n";
    }
}
echo "$run tests, $failed failed\n";
exit($failed ? 1 : 0);
